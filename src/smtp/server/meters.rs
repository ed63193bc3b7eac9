//! Metrics of server conversations, fed once a conversation from its [`SessionCounters`]. Pure.

use prometheus::{IntCounterVec, Opts, Registry};

use super::counters::SessionCounters;

/// `weir_smtp_*`, by listener.
#[derive(Clone, Debug)]
pub struct Meters {
    sessions: IntCounterVec,
    commands: IntCounterVec,
    replies: IntCounterVec,
    limits: IntCounterVec,
    messages: IntCounterVec,
    content: IntCounterVec,
    pipelining_faults: IntCounterVec,
    bare_refused: IntCounterVec,
}

impl Meters {
    /// Makes the metrics known to `registry`.
    /// # Errors
    /// When a name is taken already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let make = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        Ok(Meters {
            sessions: make("weir_smtp_sessions_total", "Conversations that ended", &["listener"])?,
            commands: make("weir_smtp_commands_total", "Command lines, good or bad", &["listener"])?,
            replies: make("weir_smtp_replies_total", "Replies; n00 for rare codes of a class", &["listener", "code"])?,
            limits: make("weir_smtp_limit_hits_total", "Bounds that were hit, by setting", &["listener", "limit"])?,
            messages: make("weir_smtp_messages_total", "Messages answered with 2xx", &["listener"])?,
            content: make("weir_smtp_content_bytes_total", "Bytes of content taken in", &["listener"])?,
            pipelining_faults: make(
                "weir_smtp_pipelining_faults_total",
                "Clients that went on talking where they had to wait",
                &["listener"],
            )?,
            bare_refused: make(
                "weir_smtp_bare_refused_total",
                "Messages refused for a bare CR or LF, or a NUL",
                &["listener"],
            )?,
        })
    }

    /// Adds up a conversation that has ended.
    pub fn session_ended(&self, listener: &str, counters: &SessionCounters) {
        self.sessions.with_label_values(&[listener]).inc();
        self.commands.with_label_values(&[listener]).inc_by(counters.commands.into());
        self.messages.with_label_values(&[listener]).inc_by(counters.messages.into());
        self.content.with_label_values(&[listener]).inc_by(counters.content_bytes);
        self.pipelining_faults.with_label_values(&[listener]).inc_by(counters.pipelining_faults.into());
        self.bare_refused.with_label_values(&[listener]).inc_by(counters.bare_refused.into());
        for (code, count) in counters.replies.iter() {
            self.replies.with_label_values(&[listener, &code.to_string()]).inc_by(count.into());
        }
        for (limit, count) in counters.limits() {
            self.limits.with_label_values(&[listener, limit.as_str()]).inc_by(count.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_is_added_up() {
        let meters = Meters::register(&Registry::new()).unwrap();
        let mut counters = SessionCounters::default();
        counters.replies.add(250);
        counters.commands += 3;
        meters.session_ended("mx", &counters);
        meters.session_ended("mx", &counters);
        assert_eq!(meters.commands.with_label_values(&["mx"]).get(), 6);
        assert_eq!(meters.replies.with_label_values(&["mx", "250"]).get(), 2);
    }
}
