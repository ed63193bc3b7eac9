//! Stage 5, what is it: rules, classifier, attachments. I/O: scanners.
