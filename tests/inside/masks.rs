//! The masks, seen from inside; each probe also runs where the mask is not in force and must succeed there.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{BufRead, BufReader},
    os::{
        fd::AsRawFd,
        unix::{
            fs::{PermissionsExt, symlink},
            net::UnixListener,
        },
    },
    path::Path,
    process::{Command, Stdio},
};

use authsome::run::mask::{Error, Request, Survey, User};
use libtest_mimic::{Failed, Trial};
use nix::unistd::{Gid, Uid};

use crate::stage::{self, Fixture, Scenario};

type Done = Result<(), Failed>;
type Test = fn() -> Done;

pub fn trials() -> Vec<Trial> {
    let tests: [(&str, Test); 18] = [
        ("home shows the marker alone", home_shows_the_marker_alone),
        ("home is masked wherever it is seen", home_is_masked_wherever_it_is_seen),
        ("home that is not masked after all", home_not_masked_after_all),
        ("home below a private directory", home_below_a_private_directory),
        ("masks cannot be taken off from inside", masks_cannot_be_taken_off),
        ("key file", key_file),
        ("sockets", sockets),
        ("socket linked into place", socket_linked_into_place),
        ("socket bound by a relative name", socket_bound_by_a_relative_name),
        ("socket in a directory that cannot be listed", socket_in_a_closed_directory),
        ("runtime directory", runtime_directory),
        ("kept path in the runtime directory", kept_path_in_the_runtime_directory),
        ("what runs later is read-only", what_runs_later_is_read_only),
        ("what runs later is read-only in other mounts", what_runs_later_in_other_mounts),
        ("proc shows the sandbox alone", proc_shows_the_sandbox_alone),
        ("hard link is refused", hard_link_is_refused),
        ("inherited views are refused", inherited_views_are_refused),
        ("survey names every mask", survey_names_every_mask),
    ];
    tests.into_iter().map(|(name, test)| Trial::test(format!("masks::{name}"), test)).collect()
}

/// The script's output in a masked sandbox of each kind this user can make.
fn each_kind(scenario: &Scenario, check: impl Fn(&str)) {
    check(&scenario.text());
    if stage::is_root() {
        check(&Scenario { rootless: false, ..scenario.clone() }.text());
    }
}

fn unmasked(scenario: &Scenario) -> String {
    Scenario { masks: false, ..scenario.clone() }.text()
}

fn home_shows_the_marker_alone() -> Done {
    let fixture = Fixture::new();
    let script = "cd ~/.authsome && find . -type f ! -empty | sort && cat .authsome-run && { touch x 2>/dev/null && echo written; true; }";
    each_kind(&fixture.masked(script), |text| assert_eq!(text, "./.authsome-run\nrun-1"));
    assert!(unmasked(&fixture.masked("cat ~/.authsome/vault/secret && touch ~/.authsome/x")).contains("do-not-find-me"));
    Ok(())
}

fn home_is_masked_wherever_it_is_seen() -> Done {
    let fixture = Fixture::new();
    for place in ["whole", "home-again", "vault-again", "hidden", "hidden/x"] {
        fixture.make_directory(place);
    }
    fixture.write("file-again", "");
    let here = fixture.path("");
    let mut scenario = fixture.masked(&format!("grep -rls do-not-find-me {} | wc -l", here.display()));
    scenario.binds = vec![
        (fixture.home(), fixture.path("whole")),
        (fixture.path("home/.authsome"), fixture.path("home-again")),
        (fixture.path("home/.authsome/vault"), fixture.path("vault-again")),
        (fixture.path("home/.authsome/vault/secret"), fixture.path("file-again")),
        // Seen at no path: something lies over it.
        (fixture.home(), fixture.path("hidden/x")),
        (fixture.path("vault-again"), fixture.path("hidden")),
    ];
    each_kind(&scenario, |text| assert_eq!(text, "0"));
    assert_eq!(unmasked(&scenario), "6");
    Ok(())
}

/// CMD is not started when the marker is not what is seen.
fn home_not_masked_after_all() -> Done {
    let fixture = Fixture::new();
    let scenario = Scenario { disturbed: true, ..fixture.masked("echo started") };
    let output = scenario.output();
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert_eq!(Scenario { disturbed: false, ..scenario }.text(), "started");
    Ok(())
}

fn home_below_a_private_directory() -> Done {
    let fixture = Fixture::new();
    let runtime = fixture.make_directory("home/runtime");
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700))?;
    fixture.make_directory("home/runtime/.authsome");
    fixture.write("home/runtime/.authsome/secret", "do-not-find-me");
    let mut scenario = fixture.masked("cat ~/.authsome/.authsome-run; ls -A ~; cat ~/.authsome/secret 2>/dev/null; true");
    scenario.home = runtime.clone();
    // The user's own home is no runtime directory; one level up it is.
    scenario.variables.push(("XDG_RUNTIME_DIR".into(), runtime.to_string_lossy().into_owned()));
    each_kind(&scenario, |text| assert_eq!(text, "run-1.authsome"));
    Ok(())
}

/// With a user namespace of its own the child has every capability over a copy of the mounts, in which ours are locked.
fn masks_cannot_be_taken_off() -> Done {
    let fixture = Fixture::new();
    let script = "unshare -Urm sh -c 'umount ~/.authsome || umount -l ~/.authsome; \
        mkdir -p /tmp/m$$ && { mount --bind / /tmp/m$$ || mount -t overlay -o lowerdir=$HOME:/tmp/m$$ none /tmp/m$$; }; \
        mount -o remount,rw,bind ~/.authsome; touch ~/.authsome/x; \
        cat ~/.authsome/vault/secret /tmp/m$$/$HOME/.authsome/vault/secret /tmp/m$$/.authsome/vault/secret; \
        rmdir /tmp/m$$; ls ~/.authsome' 2>/dev/null; true";
    each_kind(&Scenario { lock_down: true, ..fixture.masked(script) }, |text| assert_eq!(text, ""));
    Ok(())
}

fn key_file() -> Done {
    let fixture = Fixture::new();
    let key = fixture.write("home/key.txt", "do-not-find-me");
    let link = fixture.path("home/link");
    symlink(&key, &link)?;
    let mut scenario = fixture.masked("wc -c < ~/key.txt; mv ~/key.txt ~/other 2>/dev/null; echo $?");
    scenario.key_file = Some(link);
    each_kind(&scenario, |text| assert_eq!(text, "0\n1"));
    scenario.key_file = None;
    assert!(scenario.text().starts_with("14"));
    Ok(())
}

/// Prints `open` or the reason why not.
fn connect_to(path: &Path) -> String {
    format!(
        "perl -MIO::Socket::UNIX -e 'print IO::Socket::UNIX->new(Peer => q({})) ? q(open) : $!{{ECONNREFUSED}} ? q(refused) : $!'",
        path.display()
    )
}

fn sockets() -> Done {
    let fixture = Fixture::new();
    fixture.make_directory("other name");
    fixture.make_directory("run");
    let path = fixture.path("run/agent");
    let _listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
    let again = fixture.path("other name/agent");
    let mut scenario = fixture.masked(&format!("{}; echo; {}", connect_to(&path), connect_to(&again)));
    scenario.binds = vec![(fixture.path("run"), fixture.path("other name"))];
    each_kind(&scenario, |text| assert_eq!(text, "refused\nrefused"));
    assert_eq!(unmasked(&scenario), "open\nopen");
    scenario.keep = vec![path];
    each_kind(&scenario, |text| assert_eq!(text, "open\nopen"));
    Ok(())
}

/// As ssh does with its control socket: the kernel knows it by a name that is gone.
fn socket_linked_into_place() -> Done {
    let fixture = Fixture::new();
    let (temporary, path) = (fixture.path("home/master.tmp"), fixture.path("home/master"));
    let _listener = UnixListener::bind(&temporary)?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o777))?;
    fs::hard_link(&temporary, &path)?;
    fs::remove_file(&temporary)?;
    let scenario = fixture.masked(&connect_to(&path));
    each_kind(&scenario, |text| assert_eq!(text, "refused"));
    assert_eq!(unmasked(&scenario), "open");
    Ok(())
}

/// As development servers do with the one of their project. What such a mask does is what any other socket's does.
fn socket_bound_by_a_relative_name() -> Done {
    let fixture = Fixture::new();
    let server =
        "use IO::Socket::UNIX; $s = IO::Socket::UNIX->new(Local => q(relative), Listen => 9) or die; $| = 1; print qq(bound\n); <STDIN>";
    let mut command = Command::new("perl");
    command.args(["-e", server]).current_dir(fixture.home()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut server = command.spawn()?;
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut String::new())?;
    let lines = survey(&fixture, &[])?.to_string();
    drop(server.stdin.take());
    server.wait()?;
    let line = format!("hidden     {}/relative", fixture.home().canonicalize()?.display());
    assert!(lines.lines().any(|found| found == line), "{line}\nnot in\n{lines}");
    Ok(())
}

fn socket_in_a_closed_directory() -> Done {
    if !stage::is_root() {
        eprintln!("needs a directory of another user");
        return Ok(());
    }
    let fixture = Fixture::new();
    let closed = fixture.make_directory("closed");
    let path = fixture.path("closed/agent");
    let _listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
    std::os::unix::fs::chown(&closed, Some(0), Some(0))?;
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o711))?;
    let scenario = fixture.masked(&connect_to(&path));
    each_kind(&scenario, |text| assert_eq!(text, "refused"));
    assert_eq!(unmasked(&scenario), "open");
    Ok(())
}

fn runtime(fixture: &Fixture, script: &str) -> Scenario {
    let directory = fixture.make_directory("runtime");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
    fixture.write("runtime/token", "do-not-find-me");
    let mut scenario = fixture.masked(script);
    scenario.variables.push(("XDG_RUNTIME_DIR".into(), directory.to_string_lossy().into_owned()));
    scenario
}

fn runtime_directory() -> Done {
    let fixture = Fixture::new();
    let scenario = runtime(&fixture, "cd $XDG_RUNTIME_DIR && stat -c '%a %u' . && ls -A && touch own && ls");
    let uid = stage::user().0;
    each_kind(&scenario, |text| assert_eq!(text, format!("700 {uid}\nown")));
    assert!(unmasked(&scenario).contains("token"));
    Ok(())
}

fn kept_path_in_the_runtime_directory() -> Done {
    let fixture = Fixture::new();
    let mut scenario = runtime(&fixture, "cd $XDG_RUNTIME_DIR && find . -type f | sort && cat sub/kept");
    fixture.make_directory("runtime/sub");
    let kept = fixture.write("runtime/sub/kept", "let through");
    scenario.keep = vec![kept];
    each_kind(&scenario, |text| assert_eq!(text, "./sub/kept\nlet through"));
    Ok(())
}

fn what_runs_later_is_read_only() -> Done {
    let fixture = Fixture::new();
    fixture.write("home/.bashrc", "original\n");
    fixture.make_directory("home/dotfiles");
    fixture.write("home/dotfiles/profile", "original\n");
    symlink("dotfiles/profile", fixture.path("home/.profile"))?;
    fixture.make_directory("home/.ssh");
    fixture.make_directory("home/.config/systemd/user");
    stage::own(&fixture.path("home/.config"));
    stage::own(&fixture.path("home/.config/systemd"));
    // Every attempt that succeeds prints its number.
    let attempts = [
        "echo evil >> ~/.bashrc",
        "mv ~/.bashrc ~/moved",
        "rm -f ~/.bashrc",
        "echo evil > ~/new; mv ~/new ~/.bashrc",
        "ln -sfn /tmp/evil ~/.profile",
        "rm -f ~/.profile",
        "echo evil >> ~/.profile",
        "echo evil >> ~/dotfiles/profile",
        "mv ~/dotfiles/profile ~/moved-profile; mv ~/moved-profile ~/dotfiles/profile",
        "mv ~/dotfiles ~/dotfiles-old",
        "echo key > ~/.ssh/authorized_keys",
        "mv ~/.ssh ~/.ssh-old",
        "touch ~/.config/systemd/user/evil.service",
        "mv ~/.config ~/.config-old",
    ];
    let script: String = attempts.iter().enumerate().map(|(n, attempt)| format!("( {attempt} ) 2>/dev/null && echo {n}\n")).collect();
    let scenario = fixture.masked(&format!("{script} touch ~/.config/ordinary ~/dotfiles/ordinary && cat ~/.bashrc ~/.profile"));
    each_kind(&scenario, |text| assert_eq!(text, "original\noriginal"));
    let kept = Scenario { keep: vec![fixture.path("home/.bashrc")], ..fixture.masked("echo more >> ~/.bashrc && cat ~/.bashrc") };
    assert_eq!(kept.text(), "original\nmore");
    let succeeded = unmasked(&fixture.masked(&script));
    assert_eq!(succeeded.lines().count(), attempts.len(), "{succeeded}");
    Ok(())
}

fn what_runs_later_in_other_mounts() -> Done {
    let fixture = Fixture::new();
    fixture.write("home/.bashrc", "original\n");
    let again = fixture.make_directory("again");
    let mut scenario = fixture.masked(&format!("echo evil 2>/dev/null >> {}/.bashrc; cat ~/.bashrc", again.display()));
    scenario.binds = vec![(fixture.home(), again)];
    each_kind(&scenario, |text| assert_eq!(text, "original"));
    assert_eq!(unmasked(&scenario), "original\nevil");
    Ok(())
}

fn proc_shows_the_sandbox_alone() -> Done {
    let fixture = Fixture::new();
    fixture.make_directory("proc");
    let mut scenario =
        fixture.masked(&format!("cat /proc/{0}/comm {1}/{0}/comm 2>/dev/null | wc -l", std::process::id(), fixture.path("proc").display()));
    scenario.binds = vec![("/proc".into(), fixture.path("proc"))];
    // A process of the same number may exist inside by chance only if it is among the first few.
    each_kind(&scenario, |text| assert_eq!(text, "0"));
    Ok(())
}

fn survey(fixture: &Fixture, keep: &[std::path::PathBuf]) -> Result<Survey, Error> {
    survey_with(fixture, keep, &|_| None)
}

fn survey_with(fixture: &Fixture, keep: &[std::path::PathBuf], env: &dyn Fn(&str) -> Option<OsString>) -> Result<Survey, Error> {
    let (uid, gid) = stage::user();
    Survey::take(&Request {
        authsome_home: &fixture.path("home/.authsome"),
        key_file: None,
        user: User { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), home: fixture.home() },
        run_id: "run-1",
        keep,
        env,
    })
}

fn hard_link_is_refused() -> Done {
    let fixture = Fixture::new();
    let secret = fixture.path("home/.authsome/vault/secret");
    assert!(survey(&fixture, &[]).is_ok());
    fs::hard_link(&secret, fixture.path("home/innocent"))?;
    assert!(matches!(survey(&fixture, &[]), Err(Error::HardLinks { path, links: 2 }) if path.ends_with("vault/secret")));
    Ok(())
}

fn inherited_views_are_refused() -> Done {
    let fixture = Fixture::new();
    let survey = survey(&fixture, &[])?;
    let vault = fixture.path("home/.authsome/vault").canonicalize()?;
    assert!(matches!(survey.refuse_inherited(&vault), Err(Error::WorkingDirectory(_))));
    assert!(survey.refuse_inherited(Path::new("/")).is_ok());
    let (secret, directory, plain) = (File::open(vault.join("secret"))?, File::open(fixture.home())?, File::open("/dev/null")?);
    assert!(matches!(survey.refuse_descriptor(secret.as_raw_fd()), Err(Error::Descriptor { .. })));
    assert!(matches!(survey.refuse_descriptor(directory.as_raw_fd()), Err(Error::DirectoryDescriptor { .. })));
    assert!(survey.refuse_descriptor(plain.as_raw_fd()).is_ok());
    assert!(survey.refuse_descriptor(1_000_000).is_ok());
    let runtime = fixture.make_directory("runtime").canonicalize()?;
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700))?;
    let survey = survey_with(&fixture, &[], &|name| (name == "XDG_RUNTIME_DIR").then(|| runtime.clone().into()))?;
    assert!(matches!(survey.refuse_inherited(&runtime), Err(Error::WorkingDirectory(_))));
    Ok(())
}

fn survey_names_every_mask() -> Done {
    let fixture = Fixture::new();
    fixture.write("home/.bashrc", "");
    let _listener = UnixListener::bind(fixture.path("home/agent"))?;
    let lines = survey(&fixture, &[])?.to_string();
    let home = fixture.home().canonicalize()?;
    for line in ["hidden     HOME/.authsome", "hidden     HOME/agent", "read-only  HOME/.bashrc"] {
        let line = line.replace("HOME", &home.to_string_lossy());
        assert!(lines.lines().any(|found| found == line), "{line}\nnot in\n{lines}");
    }
    let kept = survey(&fixture, std::slice::from_ref(&home))?.to_string();
    let own: Vec<_> = kept.lines().filter(|line| line.contains(&*home.to_string_lossy())).collect();
    assert_eq!(own, [format!("hidden     {}/.authsome", home.display())]);
    Ok(())
}
