//! Gives up what a mail server does not need: root, files, system calls. I/O: the kernel's security interfaces.
//!
//! In this order, once the ports are bound: [`drop_privileges`], [`restrict_files`] (Landlock), [`restrict_calls`]
//! (seccomp). Landlock binds the calling thread and those it makes, so call it before any thread is started; the others
//! bind all threads. A kernel without one of them is reported, never an error: the rest still holds. A wish that the
//! kernel could fulfil and did not is an error, and the caller should not serve.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use landlock::{ABI, Access, AccessFs, BitFlags, RulesetAttr, RulesetCreatedAttr, RulesetStatus, path_beneath_rules};
use nix::libc;
use nix::unistd::{Gid, Uid, User};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// What became of a restriction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// In force; the text says what.
    Applied(String),
    /// Nothing to do, or the kernel does not have it; the text says why.
    Absent(&'static str),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Applied(what) => f.write_str(what),
            Outcome::Absent(why) => write!(f, "off: {why}"),
        }
    }
}

/// Becomes `user`, if the process is root, with that user's group and no other, and gives up gaining rights by exec. Of root's
/// rights one is kept, as BIND's named does: to take ports below 1024, for listeners that a reload brings. `sockets` go
/// over to the user, as the kernel lets only their owner listen beside them (SO_REUSEPORT).
/// # Errors
/// When there is no such user, or it is root, or the kernel refuses.
pub fn drop_privileges<'a>(user: &str, sockets: impl Iterator<Item = BorrowedFd<'a>>) -> io::Result<Outcome> {
    rustix::thread::set_no_new_privs(true)?;
    if !Uid::effective().is_root() {
        return Ok(Outcome::Absent("not started as root"));
    }
    let found = find(user)?;
    for socket in sockets {
        std::os::unix::fs::fchown(socket, Some(found.uid.as_raw()), None)?;
    }
    let kept = rustix::thread::capabilities(None)?.permitted & CapabilitySet::NET_BIND_SERVICE;
    rustix::thread::set_keep_capabilities(true)?;
    nix::unistd::setgroups(&[])?;
    nix::unistd::setresgid(found.gid, found.gid, found.gid)?;
    nix::unistd::setresuid(found.uid, found.uid, found.uid)?;
    rustix::thread::set_keep_capabilities(false)?;
    let only = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, only)?;
    // The saved ids went too; a kernel or library that kept one would let us come back.
    if nix::unistd::setuid(Uid::from_raw(0)).is_ok() || nix::unistd::setgid(Gid::from_raw(0)).is_ok() {
        return Err(io::Error::other("root could be regained"));
    }
    Ok(Outcome::Applied(format!("runs as {user}, uid {}, with the right to bind and no other", found.uid)))
}

fn find(user: &str) -> io::Result<User> {
    let found = User::from_name(user)?;
    let found = found.ok_or_else(|| io::Error::other(format!("no user is named `{user}`")))?;
    if found.uid.is_root() {
        return Err(io::Error::other(format!("`{user}` is root")));
    }
    Ok(found)
}

/// Makes a folder, and those above it, if it is not there. Made by root, it belongs to the `user` that root is to become.
/// # Errors
/// When it can't be made, or there is no such user.
pub fn make_folder(folder: &Path, user: Option<&str>) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(folder)?;
    match user.filter(|_| Uid::effective().is_root()) {
        Some(user) => {
            let found = find(user)?;
            std::os::unix::fs::chown(folder, Some(found.uid.as_raw()), Some(found.gid.as_raw()))
        }
        None => Ok(()),
    }
}

/// What may still be reached in the file system.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// Folders to read and write.
    pub read_write: Vec<PathBuf>,
    /// Files to read (their folders too: files are replaced by renaming), and folders.
    pub read: Vec<PathBuf>,
}

/// Read by libraries while the server runs: resolver, certificates, time zones, processor count.
const SYSTEM_READ: [&str; 9] = [
    "/etc/resolv.conf",
    "/etc/ssl/certs",
    "/etc/pki",
    "/usr/share/ca-certificates",
    "/usr/share/zoneinfo",
    "/dev/urandom",
    "/proc",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
];
/// Written to by libraries.
const SYSTEM_WRITE: [&str; 1] = ["/dev/null"];
/// The newest rights that we know; what an older kernel lacks is left out.
const LANDLOCK_ABI: ABI = ABI::V5;

/// Forbids all files but those in `reach`, and to execute any, for this thread and those that it will start.
/// # Errors
/// When the kernel has Landlock and refuses.
pub fn restrict_files(reach: &Reach) -> io::Result<Outcome> {
    let all = AccessFs::from_all(LANDLOCK_ABI);
    let write: BitFlags<AccessFs> = all & !AccessFs::Execute;
    let read = AccessFs::from_read(LANDLOCK_ABI) & !AccessFs::Execute;
    let system = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
    let writable = [reach.read_write.clone(), system(&SYSTEM_WRITE)].concat();
    let readable: Vec<PathBuf> =
        [reach.read.clone(), system(&SYSTEM_READ)].concat().iter().flat_map(|path| with_folder(path)).collect();
    let status = landlock::Ruleset::default()
        .handle_access(all)
        .and_then(landlock::Ruleset::create)
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(writable, write)))
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(readable, read)))
        .and_then(landlock::RulesetCreated::restrict_self)
        .map_err(io::Error::other)?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Outcome::Applied("Landlock, all file rights".into()),
        RulesetStatus::PartiallyEnforced => Outcome::Applied("Landlock, the file rights this kernel knows".into()),
        RulesetStatus::NotEnforced => Outcome::Absent("this kernel has no Landlock"),
    })
}

/// A folder is reached as such; a file through its folder, and where it is a link, through the target's folder too.
fn with_folder(path: &Path) -> Vec<PathBuf> {
    // The parent of a bare file name.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let folder = |path: &Path| if path.is_dir() { Some(path.to_owned()) } else { path.parent().map(Path::to_owned) };
    let target = path.canonicalize().ok();
    // A device's folder holds more than what is wanted.
    if path.starts_with("/dev") {
        return vec![path.to_owned()];
    }
    folder(path).into_iter().chain(target.as_deref().and_then(folder)).collect()
}

/// Calls that a mail server never makes: other programs, other processes, the kernel's own affairs, other rights.
const DENIED: [libc::c_long; 58] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_mknodat,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_personality,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
];

/// The same on one architecture only.
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: [libc::c_long; 8] = [
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_mknod,
    libc::SYS_uselib,
    libc::SYS_kexec_file_load,
];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: [libc::c_long; 0] = [];

/// Forbids, for all threads, to start a program or process and what else no mail server does; such a call fails with EPERM.
/// # Errors
/// When the kernel has seccomp and refuses.
pub fn restrict_calls() -> io::Result<Outcome> {
    let Ok(arch) = std::env::consts::ARCH.try_into() else {
        return Ok(Outcome::Absent("no system call table for this processor"));
    };
    let program = |rules, errno: i32| -> io::Result<BpfProgram> {
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), arch);
        filter.and_then(TryInto::try_into).map_err(io::Error::other)
    };
    let mut denied: BTreeMap<i64, Vec<SeccompRule>> =
        DENIED.iter().chain(&DENIED_HERE).map(|call| (*call, Vec::new())).collect();
    denied.insert(libc::SYS_clone, vec![not_a_thread()?]);
    // clone3 keeps its flags in memory where no filter can look. "Not implemented" makes the C library use clone.
    let unseen = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    for program in [program(unseen, libc::ENOSYS)?, program(denied, libc::EPERM)?] {
        match seccompiler::apply_filter_all_threads(&program) {
            Ok(()) => {}
            Err(seccompiler::Error::Seccomp(error)) if error.raw_os_error() == Some(libc::ENOSYS) => {
                return Ok(Outcome::Absent("this kernel has no seccomp"));
            }
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    Ok(Outcome::Applied(format!("seccomp, {} system calls denied", DENIED.len() + DENIED_HERE.len() + 1)))
}

/// clone(2) without CLONE_THREAD makes a process.
fn not_a_thread() -> io::Result<SeccompRule> {
    let is_thread = SeccompCmpOp::MaskedEq(libc::CLONE_THREAD as u64);
    SeccompCondition::new(0, SeccompCmpArgLen::Qword, is_thread, 0)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::process::Command;

    /// Runs `body` in a process of its own, as what it does can't be undone.
    fn in_child(test: &str, body: fn()) {
        const MARK: &str = "WEIR_TEST_CHILD";
        if std::env::var_os(MARK).is_some() {
            return body();
        }
        let name = format!("base::harden::tests::{test}");
        let mut child = Command::new(std::env::current_exe().unwrap());
        let output = child.args([&name, "--exact", "--nocapture", "--test-threads=1"]).env(MARK, "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "the child ran the test");
    }

    #[test]
    fn after_seccomp_no_program_starts_but_threads_do() {
        in_child("after_seccomp_no_program_starts_but_threads_do", || {
            assert!(Command::new("/bin/true").status().unwrap().success());
            let (send, receive) = std::sync::mpsc::channel::<()>();
            let earlier = std::thread::spawn(move || {
                receive.recv().unwrap();
                Command::new("/bin/true").status().map(drop).map_err(|error| error.kind())
            });
            assert!(matches!(restrict_calls().unwrap(), Outcome::Applied(_)));
            let refused = Err(io::ErrorKind::PermissionDenied);
            assert_eq!(Command::new("/bin/true").status().map(drop).map_err(|error| error.kind()), refused);
            send.send(()).unwrap();
            assert_eq!(earlier.join().unwrap(), refused, "threads that were there are bound too");
            assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
        });
    }

    // `--config weir.toml`: its parent is "", and a reload could not read the file that an editor had put in its place.
    #[test]
    fn an_empty_path_is_the_folder_we_are_in() {
        assert!(with_folder(Path::new("")).contains(&PathBuf::from(".")));
    }

    #[test]
    fn after_landlock_only_the_given_folders_are_reached() {
        in_child("after_landlock_only_the_given_folders_are_reached", || {
            let [ours, theirs] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
            let config = theirs.path().join("weir.toml");
            std::fs::write(&config, "x").unwrap();
            let reach = Reach { read_write: vec![ours.path().to_owned()], read: vec![config.clone()] };
            match restrict_files(&reach).unwrap() {
                Outcome::Absent(why) => return println!("{why}"),
                Outcome::Applied(_) => {}
            }
            std::fs::write(ours.path().join("mail"), "x").unwrap();
            std::fs::rename(ours.path().join("mail"), ours.path().join("moved")).unwrap();
            assert_eq!(std::fs::read_to_string(&config).unwrap(), "x");
            let denied =
                |result: io::Result<()>| assert_eq!(result.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            denied(std::fs::write(&config, "y"));
            denied(std::fs::read_dir("/usr").map(drop));
            denied(Command::new("/bin/true").status().map(drop));
            assert!(std::fs::read("/etc/resolv.conf").is_ok() || !Path::new("/etc/resolv.conf").exists());
        });
    }

    #[test]
    fn root_is_given_up_for_good_but_for_the_right_to_bind() {
        in_child("root_is_given_up_for_good_but_for_the_right_to_bind", || {
            let none = std::iter::empty;
            if !Uid::effective().is_root() {
                assert!(matches!(drop_privileges("nobody", none()).unwrap(), Outcome::Absent(_)));
                return;
            }
            assert!(drop_privileges("no-such-user-here", none()).is_err());
            assert!(drop_privileges("root", none()).is_err());
            let wide = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            wide.set_reuse_port(true).unwrap();
            wide.bind(&std::net::SocketAddr::from(([0, 0, 0, 0], 0)).into()).unwrap();
            wide.listen(1).unwrap();
            let outcome = drop_privileges("nobody", [wide.as_fd()].into_iter()).unwrap();
            assert!(matches!(outcome, Outcome::Applied(_)), "{outcome}");
            assert!(!Uid::effective().is_root());
            assert!(nix::unistd::setuid(Uid::from_raw(0)).is_err());
            assert!(rustix::thread::no_new_privs().unwrap());
            let kept = rustix::thread::capabilities(None).unwrap();
            let only = CapabilitySet::NET_BIND_SERVICE;
            assert_eq!((kept.permitted, kept.effective, kept.inheritable), (only, only, CapabilitySet::empty()));
            restrict_calls().unwrap();
            std::thread::spawn(|| {
                // A port that nobody has; what is below 1024 and free is taken without a rule, so several are tried.
                let low = (600..1024).find_map(|port| std::net::TcpListener::bind(("127.0.0.1", port)).ok());
                assert!(low.is_some(), "ports below 1024 can be bound by threads made later, under seccomp");
                assert!(rustix::thread::set_capabilities(None, rustix::thread::capabilities(None).unwrap()).is_err());
            })
            .join()
            .unwrap();
            let port = wide.local_addr().unwrap().as_socket().unwrap().port();
            let beside = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            beside.set_reuse_port(true).unwrap();
            beside.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
        });
    }
}
