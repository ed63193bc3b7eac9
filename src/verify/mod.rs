//! Stage 4, who is it: SPF, DKIM, DMARC, ARC. I/O: DNS.
