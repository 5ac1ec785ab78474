//! Lists `providers/*.json` for the bundled catalog, so that adding one needs no Rust change.

use std::{env, error::Error, fmt::Write, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=providers");
    let directory = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("providers");
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(&directory)? {
        let name = entry?.file_name().into_string().map_err(|name| format!("providers/{} is not UTF-8", name.display()))?;
        names.extend(name.strip_suffix(".json").filter(|name| *name != "schema").map(str::to_owned));
    }
    names.sort();
    let mut text = String::from("static BUNDLED: &[(&str, &str)] = &[\n");
    for name in names {
        let path = directory.join(format!("{name}.json"));
        writeln!(text, "    ({name:?}, include_str!({:?})),", path)?;
    }
    text.push_str("];\n");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("bundled.rs"), text)?;
    Ok(())
}
