//! What holds the program, by name. A test takes one out to see that its probe then gets through: a defence whose probe fails without it, too,
//! is not what stops it.

/// A part of the containment that a test can leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defence {
    /// AUTHSOME_HOME is covered.
    HomeMask,
    /// The key file, and AUTHSOME_HOME seen through other mounts, are covered.
    SecretMasks,
    /// Sockets of processes outside are covered.
    SocketMasks,
    /// XDG_RUNTIME_DIR and tmux's directory are empty ones.
    PrivateDirectories,
    /// What runs later outside cannot be changed.
    ReadOnly,
    /// /proc shows the sandbox's processes alone.
    OwnProc,
    /// Mounts of message queues show the sandbox's alone.
    OwnQueues,
    /// Under root, files are made and read with the user's rights.
    FilesAsUser,
    /// Variables that lead outside are removed.
    CleanEnvironment,
    /// Descriptors from 3 on are closed.
    CloseDescriptors,
    /// PID 1 cannot be looked into.
    NonDumpable,
    /// No capability over the namespaces is left.
    NoCapabilities,
    /// Set-user-ID programs are inert. The filter of [`Self::SystemCalls`] implies it: installing one sets the same bit.
    NoNewPrivileges,
    /// System calls that walk around the sandbox are refused.
    SystemCalls,
    /// Connections are led to the proxy.
    Redirect,
    /// The host's own, link-local and metadata addresses are not dialled.
    DialRule,
    /// Names that no rule can match are not looked up.
    LookupRule,
    /// The policy decides on connections and requests.
    Policy,
}

impl Defence {
    /// Always, except in a build with the feature `test-switches`.
    #[cfg(not(feature = "test-switches"))]
    pub const fn active(self) -> bool {
        true
    }

    /// Unless AUTHSOME_TEST_WITHOUT, a comma-separated list, has its name: `HomeMask,ReadOnly`.
    #[cfg(feature = "test-switches")]
    pub fn active(self) -> bool {
        let without = std::env::var("AUTHSOME_TEST_WITHOUT").unwrap_or_default();
        !without.split(',').any(|name| name == format!("{self:?}"))
    }
}

/// Panics, in a build with the feature `test-switches` alone, where the text of AUTHSOME_TEST_PANIC is among `bytes`: what a bug would do to the
/// task that meets it.
#[cfg(not(feature = "test-switches"))]
pub const fn crash_on(_: &[u8]) {}

#[cfg(feature = "test-switches")]
pub fn crash_on(bytes: &[u8]) {
    let text = std::env::var("AUTHSOME_TEST_PANIC").unwrap_or_default();
    if !text.is_empty() && bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
        panic!("as the test wants it");
    }
}

#[cfg(all(feature = "test-switches", not(debug_assertions)))]
compile_error!("the feature test-switches takes defences out: it is for tests of a development build alone");
