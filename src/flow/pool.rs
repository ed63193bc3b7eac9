//! The rayon pool, made before anybody uses it. I/O: threads.
//!
//! A panic there costs whoever waits for the result: its sender is dropped, and the conversation closed. Left to itself rayon would
//! end the process, and with it everybody else's conversation.

/// Makes it. Done once a process; a pool that is there already stays.
pub fn make() {
    let builder = rayon::ThreadPoolBuilder::new().thread_name(|number| format!("rayon-{number}"));
    let survived = |_| tracing::error!("work on the pool panicked; who waits for it gets no answer");
    if let Err(error) = builder.panic_handler(survived).build_global() {
        tracing::debug!(%error, "the pool is there already");
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    // rayon ends the process when work on its pool panics: one DKIM key or password that tripped us would have ended the server.
    #[test]
    fn a_panic_on_the_pool_ends_nothing_else() {
        const MARK: &str = "WEIR_TEST_CHILD";
        if std::env::var_os(MARK).is_none() {
            let name = "flow::pool::tests::a_panic_on_the_pool_ends_nothing_else";
            let mut child = Command::new(std::env::current_exe().unwrap());
            let output = child.args([name, "--exact", "--nocapture"]).env(MARK, "1").output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            return assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "the child ran the test");
        }
        make();
        let (send, receive) = std::sync::mpsc::channel::<()>();
        rayon::spawn(move || {
            let _held = send;
            panic!("asked for by the test");
        });
        assert!(receive.recv().is_err(), "who waits hears of it");
        let (send, receive) = std::sync::mpsc::channel();
        rayon::spawn(move || send.send(7).unwrap());
        assert_eq!(receive.recv(), Ok(7), "the next one is served");
    }
}
