//! Variables that do not reach CMD: doors to processes outside, keys to the vault, and ways around the redirect.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

/// Names, or with a `*` at the end their beginnings.
const LEAD_OUTSIDE: &[&str] = &[
    // the vault
    "AUTHSOME_MASTER_KEY*",
    "AUTHSOME_IDENTITY*",
    // terminal multiplexers and terminals
    "TMUX",
    "TMUX_PANE",
    "STY",
    "WINDOW",
    "ZELLIJ*",
    "KITTY_LISTEN_ON",
    "KITTY_PUBLIC_KEY",
    "WEZTERM_UNIX_SOCKET",
    "ALACRITTY_SOCKET",
    "GNOME_TERMINAL_*",
    "KONSOLE_DBUS_*",
    // editors
    "VSCODE_IPC_*",
    "VSCODE_GIT_IPC_*",
    "VSCODE_GIT_ASKPASS_*",
    "NVIM",
    "NVIM_LISTEN_ADDRESS",
    // session buses, agents and desktops
    "DBUS_*",
    "SSH_AUTH_SOCK",
    "SSH_AGENT_PID",
    "GPG_AGENT_INFO",
    "GNOME_KEYRING_*",
    "SESSION_MANAGER",
    "AT_SPI_BUS_ADDRESS",
    "SWAYSOCK",
    "I3SOCK",
    "HYPRLAND_INSTANCE_SIGNATURE",
    "WAYLAND_SOCKET",
    // service managers
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
];

/// Compared without regard to case: programs read both forms.
const PROXIES: &[&str] = &[
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "ftp_proxy",
    "no_proxy",
    "socks_proxy",
    "npm_config_proxy",
    "npm_config_http_proxy",
    "npm_config_https_proxy",
    "npm_config_noproxy",
    "yarn_http_proxy",
    "yarn_https_proxy",
    "global_agent_http_proxy",
    "global_agent_https_proxy",
    "cargo_http_proxy",
    "grpc_proxy",
    "ws_proxy",
    "wss_proxy",
    "rsync_proxy",
    "auto_proxy",
];

/// Whether the variable names a process outside that would act for CMD, or what opens the vault.
pub fn leads_outside(name: &OsStr) -> bool {
    LEAD_OUTSIDE.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(start) => name.as_bytes().starts_with(start.as_bytes()),
        None => name == *pattern,
    })
}

/// Whether the variable names a proxy: in the sandbox, a way around the redirect.
pub fn is_proxy_variable(name: &OsStr) -> bool {
    PROXIES.iter().any(|proxy| name.eq_ignore_ascii_case(proxy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables() {
        for (name, outside, proxy) in [
            ("AUTHSOME_MASTER_KEY", true, false),
            ("AUTHSOME_MASTER_KEY_FILE", true, false),
            ("AUTHSOME_HOME", false, false),
            ("TMUX", true, false),
            ("TMUX_TMPDIR", false, false),
            ("DBUS_SESSION_BUS_ADDRESS", true, false),
            ("VSCODE_IPC_HOOK_CLI", true, false),
            ("SSH_AUTH_SOCK", true, false),
            ("HTTPS_PROXY", false, true),
            ("https_proxy", false, true),
            ("npm_config_https_proxy", false, true),
            ("NPM_CONFIG_PROXY", false, true),
            ("PATH", false, false),
            ("HOME", false, false),
        ] {
            assert_eq!((leads_outside(name.as_ref()), is_proxy_variable(name.as_ref())), (outside, proxy), "{name}");
        }
    }
}
