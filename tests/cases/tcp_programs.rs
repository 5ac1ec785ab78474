//! Programs that speak no HTTP reach their servers as without the command, also where TLS begins in the middle of the connection.

use crate::{
    Case,
    support::{
        origin::Origin,
        world::{GID, UID, World, show, succeeded},
    },
};
use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt},
    path::PathBuf,
    process::{Command, Output},
};

pub const CASES: &[Case] = &[("postgres", postgres), ("mariadb", mariadb), ("redis", redis), ("ssh", ssh)];

const HOST: &str = "programs.acme.test";

/// A directory of the user's own.
fn directory(world: &World, name: &str) -> PathBuf {
    let directory = world.path(name);
    fs::create_dir(&directory).unwrap();
    chown(&directory, Some(UID), Some(GID)).unwrap();
    directory
}

/// As the user; servers like these refuse to run as root.
fn as_user(world: &World, program: &[&str]) -> Command {
    let mut command = world.command(program);
    command.uid(UID).gid(GID);
    command
}

fn same_inside(world: &World, client: &str) -> String {
    let client = ["sh", "-c", client];
    let (outside, inside) = (world.outside(&client), world.inside(&client));
    let said = succeeded(&outside);
    assert_eq!(succeeded(&inside), said, "{}", show(&inside));
    said
}

/// With TLS and without; TLS begins after a question in the clear (SSLRequest), so its name is never one that we open.
fn postgres(world: &World) {
    let mut versions: Vec<_> =
        fs::read_dir("/usr/lib/postgresql").expect("package postgresql").map(|entry| entry.unwrap().path()).collect();
    versions.sort();
    let bin = |name: &str| versions.last().unwrap().join("bin").join(name).display().to_string();
    let data = directory(world, "postgres").join("data").display().to_string();
    let run = |command: &mut Command| -> Output { command.output().unwrap() };
    succeeded(&run(&mut as_user(world, &[&bin("initdb"), "-D", &data, "-A", "trust", "-U", "agent", "--no-sync"])));
    fs::write(format!("{data}/pg_hba.conf"), "host all all all trust\n").unwrap();
    let (certificate, key) = (world.path("programs.pem"), world.path("programs.key"));
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let settings = [
        "listen_addresses=203.0.113.14,2001:db8:113::14".to_owned(),
        "unix_socket_directories=".to_owned(),
        "fsync=off".to_owned(),
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", certificate.display()),
        format!("ssl_key_file={}", key.display()),
    ];
    let mut server = as_user(world, &[&bin("postgres"), "-D", &data]);
    server.args(settings.iter().flat_map(|setting| ["-c", setting]));
    let _server = Origin::start(world, &mut server, "ready to accept connections");
    let query = "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid(); SELECT sum(n), md5(string_agg(n::text, ',')) FROM generate_series(1, 200000) n";
    for (mode, encrypted) in [("disable", "f|"), ("require", "t|TLSv1.3"), ("verify-full", "t|TLSv1.3")] {
        let root = world.path("root.pem");
        let parameters = format!("host={HOST} user=agent dbname=postgres sslmode={mode} sslrootcert={}", root.display());
        let said = same_inside(world, &format!("psql -XAt '{parameters}' -c \"{query}\""));
        assert!(said.starts_with(encrypted) && said.contains("20000100000|"), "{mode}: {said}");
    }
}

/// The server speaks first, in the clear; where the client wants TLS it says so and begins it in the same connection.
fn mariadb(world: &World) {
    let directory = directory(world, "mariadb");
    let data = directory.join("data").display().to_string();
    // Two servers' temporary tables of one name would meet in /tmp.
    let tmp = format!("--tmpdir={}", directory.display());
    let install = ["mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"];
    succeeded(&as_user(world, &[&install[..], &[&format!("--datadir={data}"), &tmp]].concat()).output().expect("package mariadb-server"));
    let accounts = directory.join("accounts.sql");
    fs::write(&accounts, "CREATE USER agent IDENTIFIED BY 'hunter2';\nGRANT ALL ON *.* TO agent;\n").unwrap();
    let settings = [
        format!("--datadir={data}"),
        tmp,
        format!("--init-file={}", accounts.display()),
        format!("--socket={}", directory.join("socket").display()),
        format!("--pid-file={}", directory.join("pid").display()),
        format!("--ssl-cert={}", world.path("programs.pem").display()),
        format!("--ssl-key={}", world.path("programs.key").display()),
        "--bind-address=203.0.113.14".to_owned(),
        "--skip-name-resolve".to_owned(),
        "--innodb-flush-log-at-trx-commit=0".to_owned(),
    ];
    let mut server = as_user(world, &["mariadbd", "--no-defaults"]);
    let _server = Origin::start(world, server.args(settings), "ready for connections");
    let query = "SHOW STATUS LIKE 'Ssl_version'; SELECT count(*), md5(group_concat(seq)) FROM seq_1_to_100000; SELECT repeat('x', 3000000)";
    let root = world.path("root.pem");
    let verified = format!("--ssl-ca={} --ssl-verify-server-cert", root.display());
    for (options, encrypted) in
        [("--skip-ssl", "Ssl_version\t\n"), ("--ssl", "Ssl_version\tTLSv1.3\n"), (&verified, "Ssl_version\tTLSv1.3\n")]
    {
        let client =
            format!("mariadb --no-defaults -h {HOST} -u agent -phunter2 {options} -BN mysql --max-allowed-packet=16M -e \"{query}\"");
        let said = same_inside(world, &client);
        assert!(said.starts_with(encrypted) && said.contains("\n100000\t") && said.len() > 3_000_000, "{options}: {:.200}", said);
    }
}

fn redis(world: &World) {
    let data = directory(world, "redis").display().to_string();
    let arguments = ["--dir", &data, "--bind", "203.0.113.14", "--protected-mode", "no", "--save", "", "--daemonize", "no"];
    let mut server = as_user(world, &[&["redis-server", "--port", "6379"][..], &arguments].concat());
    let _server = Origin::start(world, &mut server, "eady to accept connections");
    let client = format!("redis-cli -h {HOST}");
    let said = same_inside(
        world,
        &format!(
            "head -c 1000000 /dev/zero | tr '\\0' x | {client} -x set large; {client} strlen large; printf 'ping\\nincr n\\ndel n\\n' | {client}"
        ),
    );
    assert_eq!(said, "OK\n1000000\nPONG\n1\n1\n");
}

/// The server speaks first.
fn ssh(world: &World) {
    let keys = directory(world, "ssh");
    let path = |name: &str| keys.join(name).display().to_string();
    for name in ["host", "user"] {
        succeeded(&as_user(world, &["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", &path(name)]).output().unwrap());
    }
    let (host, authorized, pid) = (path("host"), path("user.pub"), path("pid"));
    let options = [
        format!("HostKey={host}"),
        format!("AuthorizedKeysFile={authorized}"),
        format!("PidFile={pid}"),
        "UsePAM=no".to_owned(),
        "StrictModes=no".to_owned(),
        "ListenAddress=203.0.113.14".to_owned(),
    ];
    let mut server = as_user(world, &["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", "-p", "2222"]);
    server.args(options.iter().flat_map(|option| ["-o", option]));
    let _server = Origin::start(world, &mut server, "listening on");
    let client = format!(
        "ssh -F none -p 2222 -i {} -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR agent@{HOST}",
        path("user")
    );
    let said = same_inside(world, &format!("head -c 3000000 /dev/zero | {client} 'sha256sum; echo said; exit 3'; echo $?"));
    assert!(said.ends_with("said\n3\n"), "{said}");
}
