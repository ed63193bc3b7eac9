//! Listeners of a live gateway that come, go and change by a reload: as root gives up its rights, under systemd, and at a port that is taken.
#![allow(clippy::unwrap_used)] // Helpers of tests, too.

#[path = "support/hop.rs"]
mod hop;
#[path = "support/mod.rs"]
mod support;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

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

/// A port below 1024 that nobody has.
fn low_port() -> u16 {
    (600..1024).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("one is free")
}

/// A gateway that begins as root on a fresh machine and goes on as nobody, with landlock and seccomp.
fn unprivileged(first: &str, listeners: &[String]) -> (Weir, String) {
    let more = "[security]\nuser = \"nobody\"\n";
    let weir = Weir::start_under(first, &(config(listeners) + more));
    (weir, more.to_owned())
}

fn status_of(weir: &Weir, key: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", weir.pid())).unwrap();
    let status = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap());
    status.map(|text| text.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned()).collect()
}

#[test]
fn after_root_is_given_up_ports_below_1024_can_still_be_taken() {
    // The wildcard's sockets were made by root, and nobody may bind beside them all the same.
    let (weir, more) = unprivileged("", &[at("0.0.0.0:0", &listener("mx", "mx", ""))]);
    let port = weir.port("mx");
    assert!(status_of(&weir, "Uid:").iter().all(|uids| !uids.split_whitespace().any(|uid| uid == "0")), "not root");
    // CAP_NET_BIND_SERVICE is bit 10 (capabilities(7)); no thread has another.
    for set in ["CapPrm:", "CapEff:"] {
        assert!(status_of(&weir, set).iter().all(|caps| u64::from_str_radix(caps, 16) == Ok(1 << 10)), "{set}");
    }
    assert!(status_of(&weir, "Seccomp:").iter().all(|mode| mode == "2"), "seccomp filters hold for every thread");
    let low = format!("127.0.0.1:{}", low_port());
    let narrow = format!("127.0.0.1:{port}");
    configure(
        &weir,
        &(config(&[at(&narrow, &listener("mx", "mx", "")), at(&low, &listener("low", "relay", ""))]) + &more),
    );
    weir.ok(&["reload"]);
    assert_eq!(rcpt(&mut Client::connect(&low)), (true, true));
    assert_eq!(rcpt(&mut Client::connect(&narrow)), (true, false));
    assert!(TcpStream::connect(("127.0.0.2", port)).is_err(), "only the one address is left");
}

#[test]
fn without_the_right_to_bind_the_reload_says_what_to_do() {
    const FIRST: &str = "exec setpriv --bounding-set=-net_bind_service \"$0\" serve --config \"$1\"\n";
    let (weir, more) = unprivileged(FIRST, &[listener("mx", "mx", "")]);
    assert!(status_of(&weir, "CapEff:").iter().all(|caps| u64::from_str_radix(caps, 16) == Ok(0)));
    let low = format!("127.0.0.1:{}", low_port());
    configure(&weir, &(config(&[listener("mx", "relay", ""), at(&low, &listener("low", "relay", ""))]) + &more));
    let output = weir.cli(&["reload"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    // The kernel may be told that all ports are free for all, as containers' are.
    let free_from: u16 =
        fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap().trim().parse().unwrap();
    if free_from == 0 {
        return assert!(output.status.success(), "{told}");
    }
    assert!(told.starts_with(&format!("error: listener low at {low}: Permission denied")), "{told}");
    assert!(told.contains("CAP_NET_BIND_SERVICE") && told.contains("AmbientCapabilities="), "{told}");
    assert_eq!(rcpt(&mut Client::connect(&weir.address("mx"))), (true, false), "the old configuration is in force");
}

// What root had made before it became another belonged to root: the spool could not be opened, and once the certificate was
// made anew it could not be read.
#[test]
fn what_root_makes_belongs_to_the_user_it_becomes() {
    let (weir, _) = unprivileged("", &[listener("mx", "mx", "tls = \"starttls\"")]);
    let data = weir.path().join("data");
    let owner = |path: &Path| fs::metadata(path).unwrap().uid();
    let nobody = owner(&data.join("run.json"));
    assert_ne!(nobody, 0);
    weir.add_user("alice");
    for name in ["", "spool", "self-signed.key", "self-signed.pem", "users.toml", "admin.token"] {
        assert_eq!(owner(&data.join(name)), nobody, "{name}");
    }
    assert_eq!(rcpt(&mut Client::connect(&weir.address("mx"))), (true, false));
}

#[test]
fn a_user_who_cant_write_the_data_is_named_at_the_start() {
    let folder = support::folder();
    let text = config(&[listener("mx", "mx", "")]) + "[security]\nuser = \"nobody\"\n";
    let file = folder.path().join("weir.toml");
    fs::write(&file, text.replace("DIR", &folder.path().display().to_string())).unwrap();
    let spool = folder.path().join("data/spool");
    fs::create_dir_all(&spool).unwrap();
    std::os::unix::fs::chown(folder.path().join("data"), Some(65534), None).unwrap();
    let (ok, said) = support::run(env!("CARGO_BIN_EXE_weir"), &["serve", "--config", &file.display().to_string()]);
    let place = spool.display();
    assert!(
        !ok && said.contains(&format!("`nobody` can't write {place}; give it over: chown -R nobody {place}")),
        "{said}"
    );
}

// "Permission denied" for a file that root could read in any other program left the operator with a riddle.
#[test]
fn a_file_beyond_the_sandbox_is_refused_with_its_reason() {
    let weir = Weir::start(&config(&[listener("mx", "mx", "tls = \"starttls\"")]));
    let elsewhere = support::folder();
    for (name, own) in [("c.pem", "self-signed.pem"), ("k.pem", "self-signed.key")] {
        fs::copy(weir.path().join("data").join(own), elsewhere.path().join(name)).unwrap();
    }
    let place = elsewhere.path().display();
    let tls = format!("[tls]\ncertificate = \"{place}/c.pem\"\nkey = \"{place}/k.pem\"\n");
    configure(&weir, &(config(&[listener("mx", "mx", "tls = \"starttls\"")]) + &tls));
    let output = weir.cli(&["reload"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let has_landlock = weir.log().contains("landlock done=Landlock");
    assert_eq!(output.status.success(), !has_landlock, "{told}");
    assert_eq!(
        told.contains("landlock lets the running process read only what it was started with"),
        has_landlock,
        "{told}"
    );
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
