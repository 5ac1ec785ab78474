//! What the supervisor asks of the kernel for itself (prctl(2)).

use nix::sys::prctl;

/// No process of the same user reads our memory from here on, and it leaves no core.
pub fn seal_memory() -> nix::Result<()> {
    prctl::set_dumpable(false)
}

/// Whatever the command leaves behind becomes our child, and is still told from a stranger.
pub fn adopt_orphans() -> nix::Result<()> {
    prctl::set_child_subreaper(true)
}
