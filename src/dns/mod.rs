//! Resolver and its bounded cache. I/O: DNS.
