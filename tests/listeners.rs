//! Listeners of a live gateway that come, go and change by a reload: under systemd, and at a port that is taken.
#![allow(clippy::unwrap_used)] // Helpers of tests, too.

#[path = "support/hop.rs"]
mod hop;
#[path = "support/mod.rs"]
mod support;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use hop::{Client, send};
use support::config::{domain, head, listener};
use support::{PATIENCE, Weir, wait_for};

const DOMAIN: &str = "here.test";

fn config(listeners: &[String]) -> String {
    head("mx.example.test")
        + "[relay]\nnetworks = [\"127.0.0.0/8\"]\nsmarthost = \"smtp://127.0.0.1:1\"\n"
        + &listeners.concat()
        + &domain(DOMAIN, "discard:")
}

/// Writes another configuration over the gateway's.
fn configure(weir: &Weir, text: &str) {
    let text = text.replace("DIR", &weir.path().display().to_string());
    fs::write(weir.path().join("weir.toml"), text).unwrap();
}

/// The same as `text` in the configuration, but at this address.
fn at(address: &str, listener: &str) -> String {
    listener.replace("127.0.0.1:0", address)
}

/// Replies to RCPT for a domain of ours and for a foreign one.
fn rcpt(client: &mut Client) -> (bool, bool) {
    client.command("EHLO client.test");
    client.command("MAIL FROM:<a@shop.test>");
    let ours = client.command("RCPT TO:<u@here.test>").starts_with("250");
    (ours, client.command("RCPT TO:<u@far.test>").starts_with("250"))
}

#[test]
fn listeners_come_go_and_change_without_a_restart() {
    let weir = Weir::start(&config(&[listener("mx", "mx", ""), listener("inside", "relay", "")]));
    let (mx, inside) = (weir.address("mx"), weir.address("inside"));
    let mut under_way = Client::connect(&inside);
    assert_eq!(rcpt(&mut under_way), (true, true));
    assert!(under_way.command("DATA").starts_with("354"));
    let mut stranger = Client::connect(&mx);

    configure(&weir, &config(&[listener("mx", "relay", ""), listener("more", "lmtp", "")]));
    let told = weir.ok(&["reload"]);
    let more = weir.address("more");
    let lines = [
        format!("listener mx at {mx}: changed, for new connections"),
        format!("listener more at {more}: new"),
        format!("listener inside at {inside}: closed; its connections go on: 1"),
    ];
    assert_eq!(told.lines().collect::<Vec<_>>(), lines);

    assert!(Client::connect(&more).command("LHLO client.test").starts_with("250"));
    assert_eq!(weir.address("mx"), mx, "its sockets stayed");
    assert_eq!(rcpt(&mut Client::connect(&mx)), (true, true), "it relays now");
    assert_eq!(
        rcpt(&mut stranger),
        (true, false),
        "who came to an mx listener may not relay because it became another"
    );
    assert!(TcpStream::connect(&inside).is_err(), "nobody listens there");
    assert!(under_way.command("Subject: last\r\n\r\nx\r\n.").starts_with("250"), "what was under way goes to its end");
    assert_eq!(rcpt(&mut under_way), (true, true), "and may what it might");
    let run = fs::read_to_string(weir.path().join("data/run.json")).unwrap();
    assert!(!run.contains("inside"), "{run}");

    // Back again, by the signal.
    configure(
        &weir,
        &config(&[listener("mx", "mx", "tls = \"implicit\""), at(&inside, &listener("inside", "relay", ""))]),
    );
    weir.signal("HUP");
    wait_for("the relay listener", || TcpStream::connect(&inside).ok());
    assert!(send(&inside, "a@here.test", "u@far.test", "Subject: again\r\n\r\nx").starts_with("250"));
    assert!(TcpStream::connect(&more).is_err());
    assert_eq!(rcpt(&mut Client::connect(&inside)), (true, true));
    // TLS from the first byte has the mx listener now; a plain one waits there in vain.
    let mut plain = Client::silent(&mx);
    plain.send("EHLO client.test\r\n");
    assert!(!plain.reply().starts_with("220"));
    for (name, address) in [("mx", &mx), ("inside", &inside)] {
        assert_eq!(weir.address(name), *address);
    }
    let metrics = support::run("curl", &["-sS", &format!("http://{}/metrics", weir.address("admin"))]).1;
    let open = format!("weir_front_connections{{listener=\"{more}\"}} 0");
    wait_for("counts of the one that is gone", || metrics.contains(&open).then_some(()));
    assert!(metrics.contains("weir_flow_sessions_open{listener=\"inside\"}"), "{metrics}");
}

#[test]
fn a_reload_whose_address_is_taken_changes_nothing() {
    let mx = listener("mx", "mx", "");
    let weir = Weir::start(&config(std::slice::from_ref(&mx)));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let before = weir.address("mx");
    let more = at(&address, &listener("more", "relay", ""));
    configure(
        &weir,
        &(config(&[listener("mx", "relay", ""), listener("free", "mx", ""), more]) + &domain("new.test", "discard:")),
    );
    let refused = weir.cli(&["reload"]);
    assert_eq!(refused.status.code(), Some(1));
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.starts_with(&format!("error: listener more at {address}: ")), "{told}");
    assert!(
        told.contains("another server listens there") && told.contains("the old configuration stays in force"),
        "{told}"
    );
    let mut client = Client::connect(&before);
    assert_eq!(rcpt(&mut client), (true, false), "still for strangers");
    assert!(client.command("RCPT TO:<u@new.test>").starts_with("55"), "the rest of the file is not in force either");
    let run = fs::read_to_string(weir.path().join("data/run.json")).unwrap();
    assert!(!run.contains("free") && !run.contains("more"), "{run}");
    drop(taken);
    weir.ok(&["reload"]);
    assert_eq!(rcpt(&mut Client::connect(&address)), (true, true));
}

/// Plays systemd by a few lines of Python: a listening socket as descriptor 3, then the gateway in the same process.
const SYSTEMD: &str = "import os, socket, sys
listener = socket.socket()
listener.bind((\"127.0.0.1\", int(sys.argv[1])))
listener.listen()
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=\"1\", NOTIFY_SOCKET=sys.argv[2], WATCHDOG_USEC=\"400000\")
os.execv(sys.argv[3], [sys.argv[3], \"serve\", \"--config\", sys.argv[4]])";

#[test]
fn under_systemd_its_sockets_are_used_and_it_hears_how_we_are() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (address, name) = (format!("127.0.0.1:{port}"), format!("weir-test-systemd-{port}"));
    let systemd = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let heard = || {
        let mut text = [0; 200];
        let length = systemd.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let next_but_pings = || std::iter::repeat_with(heard).find(|text| text != "WATCHDOG=1").unwrap();
    let mx = at(&address, &listener("mx", "mx", ""));
    let first = format!("exec python3 -c '{SYSTEMD}' {port} @{name} \"$0\" \"$1\"");
    let mut weir = Weir::start_under(&first, &config(std::slice::from_ref(&mx)));
    assert_eq!(next_but_pings(), "READY=1");
    assert_eq!(heard(), "WATCHDOG=1");
    assert_eq!(rcpt(&mut Client::connect(&address)), (true, false));

    // Removed and named again: the socket is there all the while, and nobody else could have bound it.
    configure(&weir, &config(&[listener("other", "mx", "")]));
    weir.signal("HUP");
    assert!(next_but_pings().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(next_but_pings(), "READY=1");
    wait_for("word of the socket", || weir.log().contains("take it out of weir.socket").then_some(()));
    configure(&weir, &config(&[at(&address, &listener("again", "relay", ""))]));
    weir.ok(&["reload"]);
    assert_eq!(rcpt(&mut Client::connect(&address)), (true, true));
    weir.signal("TERM");
    assert_eq!(next_but_pings(), "STOPPING=1");
    assert!(weir.wait_end());
}
