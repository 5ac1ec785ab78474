//! What the supervisor asks of the kernel for itself, where that is nothing.

/// Other processes of the same user get no access without a right of the system's own (task_for_pid on macOS).
pub fn seal_memory() -> nix::Result<()> {
    Ok(())
}

/// Orphans go to the system's first process; what the command leaves behind outlives the run.
pub fn adopt_orphans() -> nix::Result<()> {
    Ok(())
}
