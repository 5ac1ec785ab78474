//! Tools that fetch and publish through HTTP do the same with the command as without, on a host that is opened and injected.

use crate::{
    Case,
    support::{
        origin::Origin,
        world::{ACME_KEY, GID, UID, World, succeeded},
    },
};
use std::{fs, os::unix::process::CommandExt, process::Command};

pub const CASES: &[Case] = &[
    ("git_clone_and_push", git_clone_and_push),
    ("pip_install", pip_install),
    ("npm_install", npm_install),
    ("container_image_pushed_and_pulled", container_image_pushed_and_pulled),
];

const HOST: &str = "programs.acme.test";

/// A shell script as the user, outside the network of the command.
fn prepare(world: &World, script: &str) {
    let mut shell: Command = world.command(&["sh", "-euc", script]);
    succeeded(&shell.uid(UID).gid(GID).output().unwrap());
}

/// How many requests have got a key so far.
fn injected(world: &World) -> usize {
    let log = fs::read_to_string(world.home().join(".authsome/log/audit.jsonl")).unwrap();
    log.matches(r#""decision":"injected""#).count()
}

/// git's own server side; more than a mebibyte goes up, which git sends in chunks.
fn git_clone_and_push(world: &World) {
    prepare(
        world,
        "git init -q --bare -b main served/project.git; git -C served/project.git config http.receivepack true
         git init -q -b main first; cd first; git config user.email a@acme.test; git config user.name a
         head -c 3000000 /dev/urandom > large; git add large; git commit -qm first; git push -q ../served/project.git main",
    );
    let origin = Origin::python(world, "git_http.py", &[world.home().join("served").to_str().unwrap()]);
    for (way, output) in world.every_way(&[
        "sh",
        "-euc",
        &format!(
            "rm -rf work; git clone -q https://{HOST}/project.git work; cd work; git config user.email b@acme.test; git config user.name b
             head -c 2000000 /dev/urandom > more; git add more; git commit -qm more; git push -q origin main 2>&1
             git fetch -q; git status -sb; git fsck --strict 2>&1; test $(git rev-parse main) = $(git -C ../served/project.git rev-parse main)"
        ),
    ]) {
        assert_eq!(succeeded(&output), "## main...origin/main\n", "{way}");
    }
    // One more from outside ends what was said.
    succeeded(&world.outside(&["curl", "-fsS", &format!("https://{HOST}/project.git/HEAD")]));
    let mut seen = origin.said_until("/project.git/HEAD");
    seen.retain(|line| line.starts_with("POST"));
    let (with, without): (Vec<_>, Vec<_>) = seen.iter().partition(|line| line.ends_with(ACME_KEY));
    // Two of the three ways are injected.
    assert!(with.len() == 2 * without.len() && without.iter().all(|line| line.ends_with("None")), "{seen:?}");
}

fn pip_install(world: &World) {
    let wheel = "import zipfile, hashlib, base64
name = 'index/greeting/greeting-1.0-py3-none-any.whl'
files = {'greeting.py': 'print(\"hello from the wheel\")', 'greeting-1.0.dist-info/METADATA': 'Metadata-Version: 2.1\\nName: greeting\\nVersion: 1.0\\n',
  'greeting-1.0.dist-info/WHEEL': 'Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n'}
files['greeting-1.0.dist-info/RECORD'] = ''.join(f'{file},,\\n' for file in files) + 'greeting-1.0.dist-info/RECORD,,\\n'
with zipfile.ZipFile(name, 'w') as archive:
    for file, text in files.items():
        archive.writestr(file, text)";
    prepare(world, &format!("mkdir -p index/greeting; /usr/bin/python3 -c '{}'", wheel.replace('\'', "'\\''")));
    let _origin = Origin::python(world, "files.py", &[world.home().join("index").to_str().unwrap()]);
    for (way, output) in world.every_way(&[
        "sh",
        "-euc",
        &format!(
            "rm -rf got; /usr/bin/python3 -m pip install -q --disable-pip-version-check --no-cache-dir --no-input --index-url https://{HOST}/ --target got greeting
             cd got; /usr/bin/python3 -m greeting"
        ),
    ]) {
        assert_eq!(succeeded(&output), "hello from the wheel\n", "{way}");
    }
}

fn npm_install(world: &World) {
    prepare(
        world,
        &format!(
            "mkdir -p registry/tarballs greeting; cd greeting
             echo 'module.exports = \"hello from the package\"' > index.js; head -c 3000000 /dev/urandom > large
             echo '{{\"name\": \"greeting\", \"version\": \"1.0.0\"}}' > package.json
             npm pack --silent --pack-destination ../registry/tarballs; cd ../registry
             integrity=sha512-$(openssl dgst -sha512 -binary tarballs/greeting-1.0.0.tgz | base64 -w0)
             cat > greeting <<END
             {{\"name\": \"greeting\", \"dist-tags\": {{\"latest\": \"1.0.0\"}}, \"versions\": {{\"1.0.0\": {{\"name\": \"greeting\", \"version\": \"1.0.0\",
               \"dist\": {{\"tarball\": \"https://{HOST}/tarballs/greeting-1.0.0.tgz\", \"integrity\": \"$integrity\"}}}}}}}}\nEND\n"
        ),
    );
    let _origin = Origin::python(world, "files.py", &[world.home().join("registry").to_str().unwrap()]);
    for (way, output) in world.every_way(&[
        "sh",
        "-euc",
        &format!(
            "rm -rf project .npm; mkdir project; cd project; echo '{{}}' > package.json
             npm install --silent --no-audit --no-fund --no-update-notifier --registry https://{HOST}/ greeting
             cmp node_modules/greeting/large ../greeting/large; node -p 'require(\"greeting\")'"
        ),
    ]) {
        assert_eq!(succeeded(&output), "hello from the package\n", "{way}");
    }
    assert!(injected(world) >= 4, "metadata and tarball, in either mode");
}

/// Between skopeo and the registry of the distribution project; both speak HTTP/2. The layer goes up in pieces.
fn container_image_pushed_and_pulled(world: &World) {
    prepare(
        world,
        r#"mkdir -p stored image/blobs/sha256; cd image
           blob() { mv "$1" blobs/sha256/$(sha256sum < "$1" | cut -d' ' -f1); }
           digest() { sha256sum < "$1" | cut -d' ' -f1; }
           head -c 20000000 /dev/urandom > large; tar cf layer large; rm large
           uncompressed=$(digest layer); gzip -n1 layer; mv layer.gz layer; layer=$(digest layer)
           printf '{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ["sha256:%s"]}}' $uncompressed > config
           type=application/vnd.oci.image
           printf '{"schemaVersion": 2, "mediaType": "%s.manifest.v1+json", "config": {"mediaType": "%s.config.v1+json", "digest": "sha256:%s", "size": %s},
             "layers": [{"mediaType": "%s.layer.v1.tar+gzip", "digest": "sha256:%s", "size": %s}]}' \
             $type $type $(digest config) $(stat -c %s config) $type $layer $(stat -c %s layer) > manifest
           printf '{"schemaVersion": 2, "manifests": [{"mediaType": "%s.manifest.v1+json", "digest": "sha256:%s", "size": %s}]}' \
             $type $(digest manifest) $(stat -c %s manifest) > index.json
           echo '{"imageLayoutVersion": "1.0.0"}' > oci-layout
           blob layer; blob config; blob manifest"#,
    );
    let path = |name: &str| world.path(name).display().to_string();
    let (certificate, key, stored) = (path("programs.pem"), path("programs.key"), world.home().join("stored"));
    let config = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '203.0.113.14:443', tls: {{certificate: {certificate}, key: {key}}}}}\n",
        stored.display()
    );
    fs::write(world.path("registry.yml"), config).unwrap();
    let _origin = Origin::start(world, &mut world.command(&["docker-registry", "serve", &path("registry.yml")]), "listening on");
    for (way, output) in world.every_way(&[
        "sh",
        "-euc",
        &format!(
            "rm -rf got; copy() {{ skopeo --insecure-policy --tmpdir . copy -q \"$@\"; }}
             copy oci:image docker://{HOST}/project/image-$$:1; copy docker://{HOST}/project/image-$$:1 oci:got:1
             diff -r image/blobs got/blobs; skopeo --tmpdir . inspect --format '{{{{.Layers | len}}}}' docker://{HOST}/project/image-$$:1"
        ),
    ]) {
        assert_eq!(succeeded(&output), "1\n", "{way}");
    }
    assert!(injected(world) >= 20, "what is pushed and pulled, in either mode");
}
