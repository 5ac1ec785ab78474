//! `authsome export`
use super::{
    context::{self, Context},
    report::Failure,
};
use crate::{
    provider::{Export as Variable, Provider},
    vault::{ConnectionName, Kind, Record},
};
use zeroize::Zeroizing;

/// Print a credential for a program that must have it itself
///
/// Refresh tokens are never printed. The output is a secret: keep it out of files that others can read and of shell histories.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  eval \"$(authsome export openai)\"                    into this shell
  authsome export openai --format dotenv > .env        for tools that read one
  authsome export openai --format json                 {\"OPENAI_API_KEY\": \"…\"}")]
pub struct Export {
    provider: String,
    /// Connection to print, if not the default one
    #[arg(long, value_name = "NAME")]
    connection: Option<ConnectionName>,
    /// How to print it
    #[arg(long, value_enum, default_value = "env")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Lines `export NAME='value'` for eval
    Env,
    /// Lines `NAME=value`
    Dotenv,
    /// One JSON object
    Json,
}

impl Export {
    pub fn run(self, context: &Context) -> Result<u8, Failure> {
        let vault = context.vault()?;
        let mut provider = context::find(&context.catalog()?, &self.provider, None)?;
        let connection = context::connection(&vault, &provider.name, self.connection.as_ref())?;
        let record = vault.load(&provider.name, &connection)?.ok_or_else(|| Failure::NotConnected(provider.name.clone()))?;
        let values = values(&mut provider, &record)?;
        let format = if context.out.json { Format::Json } else { self.format };
        context.out.data(&render(format, &values))?;
        Ok(0)
    }
}

/// Each variable with its value.
fn values<'a>(provider: &mut Provider, record: &'a Record) -> Result<Vec<(String, &'a str)>, Failure> {
    let exports = std::mem::take(&mut provider.exports);
    let exports = if exports.is_empty() { fallback(provider) } else { exports };
    if exports.is_empty() {
        return Err(Failure::NoExport(provider.name.clone()));
    }
    exports
        .into_iter()
        .map(|Variable { variable, field }| {
            if !is_variable(&variable) {
                return Err(Failure::BadVariable { provider: provider.name.clone(), variable });
            }
            let value = value(record, &field, provider)?;
            Ok((variable, value))
        })
        .collect()
}

/// A definition without `export` names at least the variable its key is usually in.
fn fallback(provider: &Provider) -> Vec<Variable> {
    let field = provider.fields.iter().find(|field| field.secret);
    let variable = provider.env_var.clone().zip(field.map(|field| field.name.clone()));
    variable.into_iter().map(|(variable, field)| Variable { variable, field }).collect()
}

fn value<'a>(record: &'a Record, field: &str, provider: &Provider) -> Result<&'a str, Failure> {
    let (provider, connection) = (provider.name.clone(), record.connection.clone());
    match &record.kind {
        // A token stored by hand stands where the definition names an access token.
        Kind::ApiKey { fields } => match fields.get(field).or_else(|| fields.get("api_key").filter(|_| field == "access_token")) {
            Some(value) => Ok(value.expose()),
            None => Err(Failure::NoField { provider, connection, field: field.to_owned() }),
        },
        // Whatever field the definition names, the access token is all that leaves.
        Kind::OAuth { expires_at: Some(at), .. } if *at <= jiff::Timestamp::now().as_second() => {
            Err(Failure::Expired { provider, connection })
        }
        Kind::OAuth { access_token, .. } => Ok(access_token.expose()),
    }
}

/// POSIX XBD §3.216 "Name": anything else on the left of an assignment would be code to `eval`.
fn is_variable(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

/// Written in place, with room for all of it: no copy of a value is left behind.
fn render(format: Format, values: &[(String, &str)]) -> Zeroizing<String> {
    // No escape is longer than six characters for one octet (JSON's \u00XX).
    let room = values.iter().map(|(name, value)| name.len() + 6 * value.len() + 16).sum::<usize>() + 8;
    let mut text = Zeroizing::new(String::with_capacity(room));
    match format {
        Format::Json => json(&mut text, values),
        Format::Env => values.iter().for_each(|(name, value)| env(&mut text, name, value)),
        Format::Dotenv => values.iter().for_each(|(name, value)| dotenv(&mut text, name, value)),
    }
    text
}

/// In single quotes everything is itself but the quote (POSIX XCU §2.2.2).
pub fn env(text: &mut String, name: &str, value: &str) {
    text.extend(["export ", name, "='"]);
    for (i, part) in value.split('\'').enumerate() {
        text.extend([if i > 0 { r"'\''" } else { "" }, part]);
    }
    text.push_str("'\n");
}

/// Bare where every reader agrees on it; single quotes (taken literally) where they can be; double quotes with escapes otherwise.
fn dotenv(text: &mut String, name: &str, value: &str) {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b"_-./:@%+,=".contains(&b);
    text.extend([name, "="]);
    if !value.is_empty() && value.bytes().all(bare) {
        text.push_str(value);
    } else if !value.contains(['\'', '\n', '\r']) {
        text.extend(["'", value, "'"]);
    } else {
        text.push('"');
        for c in value.chars() {
            match c {
                '\n' => text.push_str(r"\n"),
                '\r' => text.push_str(r"\r"),
                '\\' | '"' | '$' => text.extend(['\\', c]),
                c => text.push(c),
            }
        }
        text.push('"');
    }
    text.push('\n');
}

fn json(text: &mut String, values: &[(String, &str)]) {
    let quoted = |text: &mut String, value: &str| {
        text.push('"');
        for c in value.chars() {
            match c {
                '"' | '\\' => text.extend(['\\', c]),
                // RFC 8259 §7: control characters must be escaped.
                c if c < ' ' => text.extend([format!("\\u{:04x}", u32::from(c))]),
                c => text.push(c),
            }
        }
        text.push('"');
    };
    text.push('{');
    for (i, (name, value)) in values.iter().enumerate() {
        text.push_str(if i > 0 { ",\n  " } else { "\n  " });
        quoted(text, name);
        text.push_str(": ");
        quoted(text, value);
    }
    text.push_str("\n}\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    fn rendered(format: Format, value: &str) -> String {
        render(format, &[("KEY".to_owned(), value)]).to_string()
    }

    #[test]
    fn each_format_quotes_in_its_own_way() {
        for (value, env, dotenv) in [
            ("sk-abc", "export KEY='sk-abc'\n", "KEY=sk-abc\n"),
            ("a'b", "export KEY='a'\\''b'\n", "KEY=\"a'b\"\n"),
            ("$(id) `id` \"x\"", "export KEY='$(id) `id` \"x\"'\n", "KEY='$(id) `id` \"x\"'\n"),
            ("a\nb'$c", "export KEY='a\nb'\\''$c'\n", "KEY=\"a\\nb'\\$c\"\n"),
            ("", "export KEY=''\n", "KEY=''\n"),
        ] {
            assert_eq!(rendered(Format::Env, value), env);
            assert_eq!(rendered(Format::Dotenv, value), dotenv);
        }
        assert_eq!(rendered(Format::Json, "a\"b"), "{\n  \"KEY\": \"a\\\"b\"\n}\n");
    }

    #[test]
    fn only_a_name_stands_on_the_left() {
        for (name, want) in [("KEY", true), ("_k1", true), ("1K", false), ("", false), ("A B", false), ("A;id", false), ("A-B", false)] {
            assert_eq!(is_variable(name), want, "{name}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_shell_gets_back_exactly_the_value(value in "[^\0]{0,40}") {
            let script = format!("{}printf %s \"$KEY\"", rendered(Format::Env, &value));
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            prop_assert_eq!(String::from_utf8(output.stdout).unwrap(), value);
        }

        #[test]
        fn a_json_reader_gets_back_exactly_the_value(value in "\\PC{0,20}[\u{0}-\u{1f}\"\\\\]{0,20}") {
            let object: serde_json::Value = serde_json::from_str(&rendered(Format::Json, &value)).unwrap();
            prop_assert_eq!(object["KEY"].as_str(), Some(value.as_str()));
        }
    }
}
