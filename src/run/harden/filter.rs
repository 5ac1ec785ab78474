//! System calls that walk around the sandbox, each refused by a named rule (seccomp(2)).

use std::collections::BTreeMap;

use libc::{EAFNOSUPPORT, ENOSYS, EPERM, ESOCKTNOSUPPORT, c_int, c_long};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
    sock_filter,
};

use super::{Options, Rule};

/// One rule: the calls it matches and what they return.
pub(super) struct Refusal {
    pub(super) rule: Rule,
    pub(super) why: &'static str,
    errno: c_int,
    calls: &'static [Call],
}

/// A call by number, refused when all checks on its arguments hold.
struct Call(c_long, &'static [Check]);

/// A check on argument N (from 0). All compared arguments are `int`s: the kernel looks at the low 32 bits only, and so must we.
enum Check {
    Is(u8, c_int),
    IsNot(u8, c_int),
    /// Argument, mask, value.
    Masked(u8, c_int, c_int),
}
use Check::{Is, IsNot, Masked};

const DOMAIN: u8 = 0;
const TYPE: u8 = 1;
const PROTOCOL: u8 = 2;
const COMMAND: u8 = 1;

/// The bits of socket(2)'s type that are not flags (SOCK_TYPE_MASK, include/linux/net.h).
const SOCK_TYPE_MASK: c_int = 0xf;
/// Obsolete way to ask for a packet socket (packet(7)).
const SOCK_PACKET: c_int = 10;

/// Not by number: [`foreign_abi`] answers in front of every program.
const ANY: &[Call] = &[];

/// The answers are those of a kernel that was built without the thing, for which programs have a way to go on; EPERM where there is none.
pub(super) const REFUSALS: &[Refusal] = &[
    Refusal {
        rule: Rule::ForeignAbi,
        why: "i386, x32: other numbers for the same calls go around every other rule",
        errno: ENOSYS,
        calls: ANY,
    },
    Refusal {
        rule: Rule::Vsock,
        why: "vsock has no network namespace: it reaches the host and other guests",
        errno: EAFNOSUPPORT,
        calls: &[Call(libc::SYS_socket, &[Is(DOMAIN, libc::AF_VSOCK)])],
    },
    Refusal {
        rule: Rule::Packet,
        why: "packet sockets send and read below the redirect",
        errno: EAFNOSUPPORT,
        calls: &[
            Call(libc::SYS_socket, &[Is(DOMAIN, libc::AF_PACKET)]),
            Call(libc::SYS_socket, &[Is(DOMAIN, libc::AF_INET), Masked(TYPE, SOCK_TYPE_MASK, SOCK_PACKET)]),
        ],
    },
    Refusal {
        rule: Rule::RawSocket,
        why: "raw sockets speak any protocol; ping's SOCK_DGRAM stays",
        errno: ESOCKTNOSUPPORT,
        // Of the internet families only: elsewhere SOCK_RAW is another word for SOCK_DGRAM.
        calls: &[
            Call(libc::SYS_socket, &[Is(DOMAIN, libc::AF_INET), Masked(TYPE, SOCK_TYPE_MASK, libc::SOCK_RAW)]),
            Call(libc::SYS_socket, &[Is(DOMAIN, libc::AF_INET6), Masked(TYPE, SOCK_TYPE_MASK, libc::SOCK_RAW)]),
        ],
    },
    Refusal {
        rule: Rule::Ipsec,
        why: "IPsec policies reroute traffic",
        errno: EAFNOSUPPORT,
        calls: &[Call(libc::SYS_socket, &[Is(DOMAIN, libc::AF_KEY)])],
    },
    Refusal {
        rule: Rule::Alg,
        why: "kernel code no agent needs",
        errno: EAFNOSUPPORT,
        calls: &[Call(libc::SYS_socket, &[Is(DOMAIN, libc::AF_ALG)])],
    },
    Refusal {
        rule: Rule::Netlink,
        why: "only what getifaddrs, ss and udev clients use stays",
        errno: EAFNOSUPPORT,
        calls: &[Call(
            libc::SYS_socket,
            &[
                Is(DOMAIN, libc::AF_NETLINK),
                IsNot(PROTOCOL, libc::NETLINK_ROUTE),
                IsNot(PROTOCOL, libc::NETLINK_SOCK_DIAG),
                IsNot(PROTOCOL, libc::NETLINK_KOBJECT_UEVENT),
            ],
        )],
    },
    Refusal {
        rule: Rule::OtherSocket,
        why: "Bluetooth, TIPC, RDS and the like are not redirected",
        errno: EAFNOSUPPORT,
        calls: &[Call(
            libc::SYS_socket,
            &[
                IsNot(DOMAIN, libc::AF_UNIX),
                IsNot(DOMAIN, libc::AF_INET),
                IsNot(DOMAIN, libc::AF_INET6),
                IsNot(DOMAIN, libc::AF_NETLINK),
                IsNot(DOMAIN, libc::AF_VSOCK),
                IsNot(DOMAIN, libc::AF_PACKET),
                IsNot(DOMAIN, libc::AF_KEY),
                IsNot(DOMAIN, libc::AF_ALG),
            ],
        )],
    },
    Refusal {
        rule: Rule::IoUring,
        why: "io_uring opens sockets without a system call to check",
        errno: ENOSYS,
        calls: &[Call(libc::SYS_io_uring_setup, &[]), Call(libc::SYS_io_uring_enter, &[]), Call(libc::SYS_io_uring_register, &[])],
    },
    Refusal {
        rule: Rule::Keyring,
        why: "keys of the user's session may be kept in the kernel",
        errno: ENOSYS,
        calls: &[Call(libc::SYS_keyctl, &[]), Call(libc::SYS_add_key, &[]), Call(libc::SYS_request_key, &[])],
    },
    Refusal {
        rule: Rule::TtyInput,
        why: "the shell outside would run what is pushed into the shared terminal",
        errno: EPERM,
        calls: &[
            Call(libc::SYS_ioctl, &[Is(COMMAND, libc::TIOCSTI as c_int)]),
            Call(libc::SYS_ioctl, &[Is(COMMAND, libc::TIOCLINUX as c_int)]),
        ],
    },
    Refusal { rule: Rule::Setns, why: "a namespace fd handed in would lead out", errno: EPERM, calls: &[Call(libc::SYS_setns, &[])] },
    Refusal {
        rule: Rule::FileHandle,
        why: "a handle reaches files under the masks",
        errno: ENOSYS,
        calls: &[Call(libc::SYS_open_by_handle_at, &[])],
    },
    Refusal { rule: Rule::Bpf, why: "kernel code no agent needs", errno: ENOSYS, calls: &[Call(libc::SYS_bpf, &[])] },
    Refusal { rule: Rule::Userfaultfd, why: "kernel code no agent needs", errno: ENOSYS, calls: &[Call(libc::SYS_userfaultfd, &[])] },
    Refusal { rule: Rule::Perf, why: "counters observe other processes", errno: ENOSYS, calls: &[Call(libc::SYS_perf_event_open, &[])] },
    Refusal {
        rule: Rule::Modules,
        why: "another kernel, other rules",
        errno: ENOSYS,
        calls: &[
            Call(libc::SYS_init_module, &[]),
            Call(libc::SYS_finit_module, &[]),
            Call(libc::SYS_delete_module, &[]),
            Call(libc::SYS_kexec_load, &[]),
            Call(libc::SYS_kexec_file_load, &[]),
        ],
    },
];

/// The programs to install: one for each errno, since a program of the compiler has one answer.
pub(super) fn compile(options: &Options) -> Result<Vec<BpfProgram>, BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let mut by_errno: BTreeMap<c_int, BTreeMap<i64, Vec<SeccompRule>>> = BTreeMap::new();
    for refusal in REFUSALS.iter().filter(|refusal| options.refuses(refusal.rule)) {
        for Call(number, checks) in refusal.calls {
            // An empty chain means "whatever the arguments"; SeccompRule refuses to be empty.
            let chain = by_errno.entry(refusal.errno).or_default().entry(*number).or_default();
            if !checks.is_empty() {
                chain.push(SeccompRule::new(checks.iter().map(Check::condition).collect::<Result<_, _>>()?)?);
            }
        }
    }
    let abi = foreign_abi(if options.refuses(Rule::ForeignAbi) { SeccompAction::Errno(ENOSYS as u32) } else { SeccompAction::Allow });
    by_errno
        .into_iter()
        .map(|(errno, calls)| {
            let filter = SeccompFilter::new(calls, SeccompAction::Allow, SeccompAction::Errno(errno as u32), arch)?;
            let program: BpfProgram = filter.try_into()?;
            Ok(abi.iter().cloned().chain(program).collect())
        })
        .collect()
}

impl Check {
    fn condition(&self) -> Result<SeccompCondition, BackendError> {
        let (argument, operator, value) = match *self {
            Is(argument, value) => (argument, SeccompCmpOp::Eq, value),
            IsNot(argument, value) => (argument, SeccompCmpOp::Ne, value),
            Masked(argument, mask, value) => (argument, SeccompCmpOp::MaskedEq(mask as u64), value),
        };
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value as u64)
    }
}

/// Answers calls of another ABI before the compiled program sees them: it would kill the process for another architecture, and take
/// x32 numbers for unknown ones. Classic BPF, every jump relative to the next instruction.
fn foreign_abi(action: SeccompAction) -> Vec<sock_filter> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    // struct seccomp_data, include/uapi/linux/seccomp.h
    const ARCH_OFFSET: u32 = 4;
    let answer = sock_filter { code: RETURN, jt: 0, jf: 0, k: action.into() };
    let mut program = vec![
        sock_filter { code: LOAD, jt: 0, jf: 0, k: ARCH_OFFSET },
        sock_filter { code: JUMP_EQUAL, jt: 1, jf: 0, k: AUDIT_ARCH },
        answer.clone(),
    ];
    #[cfg(target_arch = "x86_64")]
    {
        const JUMP_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
        const NUMBER_OFFSET: u32 = 0;
        /// arch/x86/include/uapi/asm/unistd.h
        const X32_SYSCALL_BIT: u32 = 0x4000_0000;
        program.extend([
            sock_filter { code: LOAD, jt: 0, jf: 0, k: NUMBER_OFFSET },
            sock_filter { code: JUMP_AT_LEAST, jt: 0, jf: 1, k: X32_SYSCALL_BIT },
            answer,
        ]);
    }
    program
}

/// AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64, include/uapi/linux/audit.h.
#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    const ALLOW: u32 = 0x7fff_0000;
    const NO_FLAGS: c_int = 0;

    /// A call as the kernel describes it to a filter (struct seccomp_data).
    fn call(arch: u32, number: c_long, arguments: [u64; 3]) -> Vec<u8> {
        let mut data = [(number as u32).to_ne_bytes(), arch.to_ne_bytes()].concat();
        data.extend([0, arguments[0], arguments[1], arguments[2], 0, 0, 0].map(u64::to_ne_bytes).concat());
        data
    }

    /// The kernel's answer: the strictest of the programs' (an errno is stricter than a permission).
    fn answer(options: &Options, data: &[u8]) -> Option<c_int> {
        let answers = compile(options).unwrap().into_iter().map(|program| run(&program, data));
        answers.filter(|&answer| answer != ALLOW).map(|answer| (answer & 0xffff) as c_int).next()
    }

    /// Runs a classic BPF program (Documentation/networking/filter.rst): the instructions the compiler uses.
    fn run(program: &[sock_filter], data: &[u8]) -> u32 {
        let (mut accumulator, mut at) = (0u32, 0usize);
        loop {
            let step = &program[at];
            at += 1;
            let mut jump = |taken: bool| at += usize::from(if taken { step.jt } else { step.jf });
            match step.code {
                0x20 => accumulator = u32::from_ne_bytes(data[step.k as usize..][..4].try_into().unwrap()),
                0x54 => accumulator &= step.k,
                0x15 => jump(accumulator == step.k),
                0x25 => jump(accumulator > step.k),
                0x35 => jump(accumulator >= step.k),
                0x05 => at += step.k as usize,
                0x06 => return step.k,
                code => panic!("instruction {code:#x}"),
            }
        }
    }

    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> Vec<u8> {
        call(AUDIT_ARCH, libc::SYS_socket, [domain, kind, protocol].map(|argument| argument as u64))
    }

    fn plain(number: c_long) -> Vec<u8> {
        call(AUDIT_ARCH, number, [0; 3])
    }

    #[test]
    fn each_rule_refuses_its_calls_and_no_other_rule_does() {
        let high_bits = call(AUDIT_ARCH, libc::SYS_ioctl, [0, 7 << 32 | libc::TIOCSTI, 0]);
        let table = [
            (Rule::Vsock, EAFNOSUPPORT, vec![socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)]),
            (
                Rule::Packet,
                EAFNOSUPPORT,
                vec![socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0x300), socket(libc::AF_INET, SOCK_PACKET, NO_FLAGS)],
            ),
            (
                Rule::RawSocket,
                ESOCKTNOSUPPORT,
                vec![socket(libc::AF_INET, libc::SOCK_RAW, 1), socket(libc::AF_INET6, libc::SOCK_RAW | libc::SOCK_NONBLOCK, 58)],
            ),
            (Rule::Ipsec, EAFNOSUPPORT, vec![socket(libc::AF_KEY, libc::SOCK_RAW, 2)]),
            (Rule::Alg, EAFNOSUPPORT, vec![socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)]),
            (Rule::Netlink, EAFNOSUPPORT, vec![socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER)]),
            (
                Rule::OtherSocket,
                EAFNOSUPPORT,
                vec![
                    socket(libc::AF_BLUETOOTH, libc::SOCK_RAW, 1),
                    socket(libc::AF_TIPC, libc::SOCK_RDM, 0),
                    socket(libc::AF_XDP, libc::SOCK_RAW, 0),
                ],
            ),
            (Rule::IoUring, ENOSYS, [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register].map(plain).to_vec()),
            (Rule::Keyring, ENOSYS, [libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_request_key].map(plain).to_vec()),
            (Rule::TtyInput, EPERM, vec![high_bits, call(AUDIT_ARCH, libc::SYS_ioctl, [0, libc::TIOCLINUX, 0])]),
            (Rule::Setns, EPERM, vec![plain(libc::SYS_setns)]),
            (Rule::FileHandle, ENOSYS, vec![plain(libc::SYS_open_by_handle_at)]),
            (Rule::Bpf, ENOSYS, vec![plain(libc::SYS_bpf)]),
            (Rule::Userfaultfd, ENOSYS, vec![plain(libc::SYS_userfaultfd)]),
            (Rule::Perf, ENOSYS, vec![plain(libc::SYS_perf_event_open)]),
            (
                Rule::Modules,
                ENOSYS,
                [libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module, libc::SYS_kexec_load, libc::SYS_kexec_file_load]
                    .map(plain)
                    .to_vec(),
            ),
            (Rule::ForeignAbi, ENOSYS, foreign_calls()),
        ];
        assert_eq!(table.len(), Rule::value_variants().len());
        for (rule, errno, calls) in table {
            for data in calls {
                assert_eq!(answer(&Options::default(), &data), Some(errno), "{rule}: {data:?}");
                assert_eq!(answer(&Options { allow: vec![rule] }, &data), None, "without {rule}: {data:?}");
            }
        }
    }

    fn foreign_calls() -> Vec<Vec<u8>> {
        const AUDIT_ARCH_I386: u32 = 0x4000_0003;
        const AUDIT_ARCH_ARM: u32 = 0x4000_0028;
        let mut calls = vec![call(AUDIT_ARCH_I386, 20, [0; 3]), call(AUDIT_ARCH_ARM, 20, [0; 3])];
        if cfg!(target_arch = "x86_64") {
            calls.push(plain(0x4000_0000 + libc::SYS_getpid));
        }
        calls
    }

    #[test]
    fn ordinary_calls_pass() {
        let calls = [
            socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0),
            socket(libc::AF_INET, libc::SOCK_DGRAM, 1),
            socket(libc::AF_UNIX, libc::SOCK_RAW, 0),
            socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE),
            call(AUDIT_ARCH, libc::SYS_ioctl, [0, libc::TIOCGWINSZ, 0]),
        ];
        let numbers = [libc::SYS_clone, libc::SYS_clone3, libc::SYS_unshare, libc::SYS_mount, libc::SYS_ptrace, libc::SYS_process_vm_readv];
        for data in calls.into_iter().chain(numbers.map(plain)) {
            assert_eq!(answer(&Options::default(), &data), None, "{data:?}");
        }
    }

    #[test]
    fn listed_with_name_state_and_reason() {
        let list = Options { allow: vec![Rule::Perf] }.to_string();
        assert!(list.contains("refused  vsock            vsock has no network namespace"), "{list}");
        assert!(list.contains("allowed  perf             "), "{list}");
        assert_eq!(list.lines().count(), Rule::value_variants().len());
    }
}
