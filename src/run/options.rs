//! What a run is asked to do, as its command line says it. What `config.toml` adds is in [`crate::config::Config`].
use crate::{provider::ProviderName, route::policy::Policy, vault::ConnectionName};
use clap::ValueEnum;
use std::{ffi::OsString, fmt, path::PathBuf};

pub use crate::config::{EgressChoice, Mode, UpstreamChoice};

#[derive(Debug)]
pub struct RunOptions {
    pub mode: Mode,
    pub egress: EgressChoice,
    /// Ports intercepted besides 443 and those of the connected providers.
    pub intercept_ports: Vec<u16>,
    /// What outgoing connections go through.
    pub upstream: UpstreamChoice,
    /// PEM files whose certificates are trusted besides the user's own.
    pub upstream_ca: Vec<PathBuf>,
    /// What the program may reach, besides what `config.toml` says.
    pub policy: Policy,
    /// Ports of the host's loopback that the program may reach.
    pub expose: Vec<u16>,
    /// Ports of the program that the host's loopback may reach.
    pub publish: Vec<u16>,
    /// Which connection is used, for providers where it is not the default one.
    pub connections: Vec<(ProviderName, ConnectionName)>,
    /// Who the program runs as, when root asks without sudo.
    pub user: Option<String>,
    /// Paths that would be masked or read-only, left as they are.
    pub keep_paths: Vec<PathBuf>,
    /// Say what would be done and do nothing.
    pub dry_run: bool,
    /// The program and its arguments; never empty.
    pub command: Vec<OsString>,
    /// 0 with `-q`, 1 by default, 2 with `-v`, 3 with `-vv`.
    pub verbosity: u8,
    /// Which of the sandbox's kernel rules are left out.
    pub allow_kernel: Vec<KernelRule>,
}

/// A refused part of the kernel's interface; its kebab-case name is the value of `--allow-kernel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KernelRule {
    /// System calls of another architecture or ABI
    ForeignAbi,
    /// Sockets to the hypervisor and its guests (AF_VSOCK)
    Vsock,
    /// Packet sockets (AF_PACKET)
    Packet,
    /// Raw IP sockets (SOCK_RAW)
    RawSocket,
    /// IPsec key sockets (AF_KEY)
    Ipsec,
    /// Kernel crypto sockets (AF_ALG)
    Alg,
    /// Netlink protocols other than route, sock_diag and uevent
    Netlink,
    /// Every other socket family: Bluetooth, CAN, TIPC …
    OtherSocket,
    /// io_uring
    IoUring,
    /// Kernel keyrings
    Keyring,
    /// Input pushed into the terminal (TIOCSTI, TIOCLINUX)
    TtyInput,
    /// Entering another namespace (setns)
    Setns,
    /// Files opened by handle instead of by path
    FileHandle,
    /// Programs for the kernel (bpf)
    Bpf,
    /// Page faults handled in user space (userfaultfd)
    Userfaultfd,
    /// Performance counters (perf_event_open)
    Perf,
    /// Kernel modules and kexec
    Modules,
}

impl fmt::Display for KernelRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.pad(value.as_ref().map_or("", |value| value.get_name()))
    }
}
