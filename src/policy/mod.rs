//! Stage 3, who may: access, relay, limits. Pure; look-ups come in as facts.
