//! Files up and down, whole and in part, between curl and nginx.

use crate::{
    Case,
    support::{
        origin::Origin,
        world::{World, show, succeeded},
    },
};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    process::{Command, Stdio},
};

pub const CASES: &[Case] = &[
    ("parts_and_conditions", parts_and_conditions),
    ("large_ones_arrive_whole_and_take_no_memory", large_ones_arrive_whole_and_take_no_memory),
];

const HOST: &str = "programs.acme.test";
const MIB: usize = 1 << 20;

/// What nginx makes of ranges and conditions, with all its fields, is the same without the command and in either mode of it.
fn parts_and_conditions(world: &World) {
    let files = world.path("files");
    fs::create_dir(&files).unwrap();
    fs::write(files.join("letters"), (0..400u32).map(|n| char::from(b'a' + (n % 26) as u8)).collect::<String>()).unwrap();
    let _origin = Origin::nginx(world, &format!("root {}; location = /none {{ return 204; }}", files.display()));
    // The boundary between parts and the date are others each time, and `Connection` is between neighbours.
    let requests = [
        ("200", "-I URL/letters"),
        ("204", "URL/none"),
        ("206", "-r 5-9 URL/letters"),
        ("206", "-r -7 URL/letters"),
        ("206", "-r 0-3,100-103,-4 URL/letters"),
        ("206", "-I -r 5-9 URL/letters"),
        ("416", "-r 9000- URL/letters"),
        ("304", "-H \"if-none-match: $etag\" URL/letters"),
        ("304", "-H \"if-modified-since: $modified\" URL/letters"),
        ("412", "-H 'if-match: \"other\"' URL/letters"),
        ("206", "-r 5-9 -H \"if-range: $etag\" URL/letters"),
        ("200", "-r 5-9 -H 'if-range: \"other\"' URL/letters"),
    ];
    for version in ["--http1.1", "--http2"] {
        let url = format!("https://{HOST}");
        let learn = format!(
            "curl -fsSI {version} {url}/letters | tr -d '\\r' > head
             etag=$(sed -n 's/^etag: //ip' head); modified=$(sed -n 's/^last-modified: //ip' head); test \"$etag\" -a \"$modified\"\n"
        );
        let ask = requests
            .map(|(_, request)| format!("curl -sSi --suppress-connect-headers {version} {}\necho =====\n", request.replace("URL", &url)));
        let script =
            format!("{{\n{learn}{}}} | sed -E '/^(date|connection):/Id; s/boundary=.*/boundary=X/; s/^--[0-9]+/--X/'", ask.concat());
        let ways = world.every_way(&["sh", "-euc", &script]);
        let direct = succeeded(&ways[0].1);
        let statuses: Vec<_> = direct.split("=====\n").filter_map(|answer| answer.split(' ').nth(1)).collect();
        assert_eq!(statuses, requests.map(|(status, _)| status), "{direct}");
        for (way, output) in &ways[1..] {
            assert_eq!(succeeded(output), direct, "{way} {version}");
        }
    }
}

/// MiB of each transfer; AUTHSOME_TEST_TRANSFER_MIB says another number (`scripts/soak`: 1024).
fn size() -> usize {
    std::env::var("AUTHSOME_TEST_TRANSFER_MIB").map_or(64, |mib| mib.parse().expect("AUTHSOME_TEST_TRANSFER_MIB"))
}

/// The client makes and digests what it sends and gets on the way, so that nobody holds it. The proxy has already carried a little when its
/// memory is looked at first.
fn large_ones_arrive_whole_and_take_no_memory(world: &World) {
    const ROOM: usize = 16 * MIB;
    let _front = Origin::nginx(
        world,
        "client_max_body_size 0; location / { proxy_pass http://127.0.0.1:8001; proxy_http_version 1.1; proxy_buffering off; proxy_request_buffering off; }",
    );
    let _origin = Origin::python(world, "bulk.py", &["8001"]);
    let bulk = "import hashlib, sys
for n in range(int(sys.argv[1])): sys.stdout.buffer.write(hashlib.sha256(b'%d' % n).digest() * 32768)";
    fs::write(world.home().join("bulk.py"), bulk).unwrap();
    let script = format!(
        "both() {{ for version in --http1.1 --http2; do
             curl -fsS $version https://{HOST}/$1 | sha256sum | cut -d' ' -f1
             python3 bulk.py $1 | curl -fsS $version -H 'expect:' -T - https://{HOST}/up; done; }}
         both 8; echo small; read go; both {}; python3 bulk.py {0} | sha256sum | cut -d' ' -f1; echo large; read go",
        size()
    );
    let client = ["sh", "-euc", &script];
    for (way, command) in [("transparent", world.authsome(&[], &client)), ("environment", world.by_environment(&[], &client))] {
        let mut run = Run::start(command);
        let (small, before) = run.until("small");
        assert!(small.len() == 4 && small.iter().all(|hash| *hash == small[0] && hash.len() == 64), "{way}: {small:?}");
        let (large, after) = run.until("large");
        assert!(large.len() == 5 && large.iter().all(|hash| *hash == large[4] && hash.len() == 64), "{way}: {large:?}");
        eprintln!("{way}: {} MiB each: {} KiB at most, {} KiB before", size(), after / 1024, before / 1024);
        assert!(after < before + ROOM, "{way}: {before} to {after} octets");
        run.end();
    }
}

/// A run that waits for a line of input after each step.
struct Run {
    child: std::process::Child,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Run {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    /// The lines before `last`, and the most octets that the supervisor ever had resident by then.
    fn until(&mut self, last: &str) -> (Vec<String>, usize) {
        let lines: Vec<_> = self.stdout.by_ref().lines().map(Result::unwrap).take_while(|line| line != last).collect();
        // timeout(1) is the one that was started.
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        let supervisor = fs::read_to_string(children).unwrap_or_default();
        let status = fs::read_to_string(format!("/proc/{}/status", supervisor.trim())).unwrap_or_default();
        let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<usize>().ok());
        let kib = kib.unwrap_or_else(|| panic!("the run has ended before {last:?}: {lines:?}"));
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        (lines, kib * 1024)
    }

    fn end(self) {
        let output = self.child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", show(&output));
    }
}
