//! Every rule of the system call filter: refused with the documented error, and not refused that way when the rule is left out.

use libtest_mimic::Trial;

use crate::stage::Scenario;

const ENOSYS: i32 = 38;
const EPERM: i32 = 1;
const ESOCKTNOSUPPORT: i32 = 94;
const EAFNOSUPPORT: i32 = 97;

/// Rule, system call with arguments as perl's `syscall` takes them, error when refused.
#[cfg(target_arch = "x86_64")]
const REFUSED: &[(&str, &str, i32)] = &[
    ("foreign-abi", "0x40000000 + 39", ENOSYS),
    ("vsock", "41, 40, 1, 0", EAFNOSUPPORT),
    ("packet", "41, 17, 3, 0", EAFNOSUPPORT),
    ("packet", "41, 17, 2 | 02000000, 0", EAFNOSUPPORT),
    ("packet", "41, 2, 10, 0", EAFNOSUPPORT),
    // The kernel takes the low 32 bits of the family.
    ("packet", "41, 0x700000011, 3, 0", EAFNOSUPPORT),
    ("raw-socket", "41, 2, 3, 1", ESOCKTNOSUPPORT),
    ("raw-socket", "41, 10, 3 | 02000000, 58", ESOCKTNOSUPPORT),
    ("ipsec", "41, 15, 3, 2", EAFNOSUPPORT),
    ("alg", "41, 38, 5, 0", EAFNOSUPPORT),
    ("netlink", "41, 16, 3, 12", EAFNOSUPPORT),
    ("netlink", "41, 16, 3, 6", EAFNOSUPPORT),
    ("other-socket", "41, 30, 5, 0", EAFNOSUPPORT),
    ("other-socket", "41, 31, 3, 1", EAFNOSUPPORT),
    ("io-uring", "425, 1, 0", ENOSYS),
    ("io-uring", "426, -1, 0, 0, 0, 0", ENOSYS),
    ("io-uring", "427, -1, 0, 0, 0", ENOSYS),
    // KEYCTL_GET_KEYRING_ID of the session keyring
    ("keyring", "250, 0, -3, 0", ENOSYS),
    ("keyring", "248, 0, 0, 0, 0, -3", ENOSYS),
    ("keyring", "249, 0, 0, 0, 0", ENOSYS),
    ("tty-input", "16, 0, 0x5412, 0", EPERM),
    ("tty-input", "16, 0, 0x700005412, 0", EPERM),
    ("tty-input", "16, 0, 0x541c, 0", EPERM),
    ("setns", "308, -1, 0", EPERM),
    ("file-handle", "304, -1, 0, 0", ENOSYS),
    ("bpf", "321, 99, 0, 0", ENOSYS),
    ("userfaultfd", "323, 0xffff", ENOSYS),
    ("perf", "298, 0, 0, -1, -1, 0", ENOSYS),
    ("modules", "175, 0, 0, 0", ENOSYS),
    ("modules", "313, -1, 0, 0", ENOSYS),
    ("modules", "176, 0, 0", ENOSYS),
    ("modules", "246, 0, 0, 0, 0", ENOSYS),
    ("modules", "320, -1, -1, 0, 0, 0", ENOSYS),
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED: &[(&str, &str, i32)] = &[];

/// Sockets ordinary programs open.
#[cfg(target_arch = "x86_64")]
const ALLOWED: &[(&str, &str)] = &[
    ("tcp", "41, 2, 1, 0"),
    ("udp over IPv6", "41, 10, 2 | 02000000, 0"),
    ("unix", "41, 1, 1, 0"),
    ("unix, raw as another word for datagram", "41, 1, 3, 0"),
    ("netlink route", "41, 16, 3 | 02000000, 0"),
    ("netlink uevent", "41, 16, 3, 15"),
    ("netlink sock_diag", "41, 16, 2, 4"),
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED: &[(&str, &str)] = &[];

pub fn trials() -> Vec<Trial> {
    let refused = REFUSED
        .iter()
        .map(|&(rule, call, errno)| Trial::test(format!("kernel::{rule} refuses {call}"), move || refuses(rule, call, errno)));
    let allowed = ALLOWED.iter().map(|&(name, call)| {
        Trial::test(format!("kernel::allows {name}"), move || {
            assert_eq!(errno_of(call, true, &[]), 0);
            Ok(())
        })
    });
    let others = [
        Trial::test("kernel::i386 is refused", i386_is_refused),
        Trial::test("kernel::no capability is left", no_capability_is_left),
        Trial::test("kernel::the first process cannot be looked into", first_process_is_closed),
        Trial::test("kernel::core limit stays the child's own", core_limit_stays),
        Trial::test("kernel::session keyring is left", session_keyring_is_left),
    ];
    refused.chain(allowed).chain(others).collect()
}

type Done = Result<(), libtest_mimic::Failed>;

fn refuses(rule: &'static str, call: &str, errno: i32) -> Done {
    assert_eq!(errno_of(call, true, &[]), errno, "with every rule");
    let without = errno_of(call, true, &[rule]);
    let bare = errno_of(call, false, &[]);
    if bare == errno {
        // Nothing to tell apart: this kernel was built without it.
        eprintln!("{rule}: {call}: this kernel answers the same by itself");
        assert_eq!(without, bare);
    } else {
        assert_ne!(without, errno, "without the rule");
    }
    Ok(())
}

/// The errno of a system call inside, 0 for success.
fn errno_of(call: &str, lock_down: bool, allow: &[&str]) -> i32 {
    let script = format!("exec perl -e 'my $r = syscall({call}); print $r == -1 ? $!+0 : 0'");
    let allow = allow.iter().map(|&name| name.to_owned()).collect();
    Scenario { lock_down, allow, ..Scenario::new(&script) }.text().parse().expect("a number")
}

/// A program of 32 bits that ends with status 7 if its `exit` is heard, and dies on `hlt` otherwise.
fn i386_is_refused() -> Done {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("i386");
    std::fs::write(&path, i386_program())?;
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    let status = |lock_down, allow: &[&str]| {
        let allow = allow.iter().map(|&name| name.to_owned()).collect();
        Scenario { lock_down, allow, ..Scenario::new(&format!("{}; echo $?", path.display())) }.text()
    };
    if status(false, &[]) != "7" {
        eprintln!("this kernel runs no i386 programs");
        return Ok(());
    }
    assert_eq!(status(true, &[]), "139", "SIGSEGV");
    assert_eq!(status(true, &["foreign-abi"]), "7");
    Ok(())
}

/// ELF header, one program header, code (System V ABI, Intel386 supplement).
fn i386_program() -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const CODE: [u8; 13] = [0xb8, 1, 0, 0, 0, 0xbb, 7, 0, 0, 0, 0xcd, 0x80, 0xf4];
    const HEADERS: u32 = 52 + 32;
    let mut elf = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    elf.extend([2u16, 3].map(u16::to_le_bytes).concat());
    elf.extend([1, BASE + HEADERS, 52, 0, 0].map(u32::to_le_bytes).concat());
    elf.extend([52u16, 32, 1, 0, 0, 0].map(u16::to_le_bytes).concat());
    let size = HEADERS + CODE.len() as u32;
    elf.extend([1, 0, BASE, BASE, size, size, 5, 0x1000].map(u32::to_le_bytes).concat());
    elf.extend(CODE);
    elf
}

fn no_capability_is_left() -> Done {
    let script = "grep -E '^(Cap|NoNewPrivs)' /proc/self/status | tr -s '\\t\\n' '  '";
    let none = "CapInh: 0000000000000000 CapPrm: 0000000000000000 CapEff: 0000000000000000 CapBnd: 0000000000000000 \
                CapAmb: 0000000000000000 NoNewPrivs: 1";
    assert_eq!(Scenario { lock_down: true, ..Scenario::new(script) }.text(), none);
    let without = Scenario::new(script).text();
    assert!(!without.contains("CapEff: 0000000000000000"), "{without}");
    if crate::stage::is_root() {
        let rooted = Scenario { lock_down: true, rootless: false, ..Scenario::new(script) }.text();
        assert!(rooted.contains("CapEff: 0000000000000000") && rooted.ends_with("NoNewPrivs: 1"), "{rooted}");
    }
    Ok(())
}

fn first_process_is_closed() -> Done {
    let script = "head -c 1 /proc/1/environ >/dev/null 2>&1 && echo open || echo closed";
    assert_eq!(Scenario { lock_down: true, ..Scenario::new(script) }.text(), "closed");
    assert_eq!(Scenario::new(script).text(), "open");
    Ok(())
}

fn core_limit_stays() -> Done {
    let script = |lock_down| Scenario { lock_down, ..Scenario::new("ulimit -Sc; ulimit -Hc") }.text();
    assert_eq!(script(true), script(false));
    Ok(())
}

/// A key of the enclosing session is not found inside, even by a child that may ask.
fn session_keyring_is_left() -> Done {
    let (keyctl, add_key) = if cfg!(target_arch = "x86_64") { (250, 248) } else { (219, 217) };
    // KEYCTL_JOIN_SESSION_KEYRING, add_key to KEY_SPEC_SESSION_KEYRING; KEYCTL_SEARCH in it.
    let session = format!("my @key = qw(user authsome-probe x); syscall({keyctl}, 1, 0); syscall({add_key}, @key, 1, -3)");
    let search = format!("perl -e 'my @key = qw(user authsome-probe); print syscall({keyctl}, 10, -3, @key, 0) > 0 ? q(found) : q(none)'");
    let look = |lock_down| {
        let scenario = Scenario { lock_down, allow: vec!["keyring".to_owned()], ..Scenario::new(&search) };
        String::from_utf8_lossy(&scenario.output_below(&session).stdout).into_owned()
    };
    if look(false) == "found" {
        assert_eq!(look(true), "none");
    } else {
        eprintln!("this kernel has no keyrings");
    }
    Ok(())
}
