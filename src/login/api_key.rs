//! API keys: asked for without echo, read from stdin, or taken from a variable. Never from the command line, where every process can read them.
use super::LoginError;
use crate::{
    provider::{self, Field, Provider},
    secret::Secret,
    vault::prompt,
};
use std::{
    collections::BTreeMap,
    io::{self, BufRead, IsTerminal, Read, Write},
};
use zeroize::Zeroizing;

/// Where the values come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    Terminal,
    Stdin,
    Variable(String),
}

/// A connection's values by field name.
pub type Fields = BTreeMap<String, Secret<String>>;

/// More than any key or certificate; a wrong file on stdin ends here.
const MAX_INPUT: u64 = 1 << 20;

/// Reads and checks all the values a provider needs.
pub fn collect(provider: &Provider, input: &Input, env: &dyn Fn(&str) -> Option<String>) -> Result<Fields, LoginError> {
    let values = match input {
        Input::Terminal => provider.fields.iter().map(|field| Ok((field.name.clone(), ask(provider, field)?))).collect::<Result<_, _>>()?,
        Input::Stdin => parse(provider, read_stdin()?)?,
        Input::Variable(name) => parse(provider, env(name).map(Secret::new).ok_or_else(|| LoginError::VariableUnset(name.clone()))?)?,
    };
    verify(provider, &values)?;
    Ok(values)
}

/// Whether each value is one that the provider's definition takes.
pub fn verify(provider: &Provider, values: &Fields) -> Result<(), LoginError> {
    values.iter().try_for_each(|(name, value)| check(provider, name, value.expose()))
}

/// A secret from stdin, without the line break at its end.
pub fn read_stdin() -> Result<Secret<String>, LoginError> {
    read(&mut io::stdin().lock())
}

/// A secret from the terminal, not echoed.
pub fn ask_terminal(prompt: &str) -> Result<Secret<String>, LoginError> {
    let answer = prompt::ask(prompt, true).map_err(unanswered)?;
    if answer.expose().is_empty() { Err(LoginError::Cancelled) } else { Ok(answer) }
}

fn ask(provider: &Provider, field: &Field) -> Result<Secret<String>, LoginError> {
    let prompt = format!("{}, {}: ", provider.display_name, field.label);
    if field.secret {
        return ask_terminal(&prompt);
    }
    let answer = ask_openly(&prompt)?;
    if answer.expose().is_empty() { Err(LoginError::Cancelled) } else { Ok(answer) }
}

fn unanswered(error: io::Error) -> LoginError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::Interrupted => LoginError::Cancelled,
        _ => LoginError::NoTerminal,
    }
}

fn ask_openly(prompt: &str) -> Result<Secret<String>, LoginError> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(LoginError::NoTerminal);
    }
    io::stderr().write_all(prompt.as_bytes()).map_err(LoginError::Read)?;
    let mut line = Zeroizing::new(String::new());
    match stdin.lock().read_line(&mut line).map_err(LoginError::Read)? {
        0 => Err(LoginError::Cancelled),
        _ => Ok(Secret::new(trim_newline(&line).to_owned())),
    }
}

/// All of it, without the one line break that `echo` and editors add.
fn read(input: &mut impl Read) -> Result<Secret<String>, LoginError> {
    // Room for any usual key at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(64 * 1024));
    input.take(MAX_INPUT + 1).read_to_end(&mut bytes).map_err(LoginError::Read)?;
    if bytes.len() as u64 > MAX_INPUT {
        return Err(LoginError::TooLong(MAX_INPUT));
    }
    let text = str::from_utf8(&bytes).map_err(|_| LoginError::NotText)?;
    match trim_newline(text) {
        "" => Err(LoginError::Cancelled),
        text => Ok(Secret::new(text.to_owned())),
    }
}

fn trim_newline(text: &str) -> &str {
    text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text))
}

/// One field: the text itself. Several: a JSON object of strings.
fn parse(provider: &Provider, text: Secret<String>) -> Result<Fields, LoginError> {
    if let [field] = provider.fields.as_slice() {
        return Ok([(field.name.clone(), text)].into());
    }
    let name = || provider.name.to_string();
    let fields = || provider.fields.iter().map(|field| field.name.clone()).collect::<Vec<_>>();
    let values: Fields = serde_json::from_str(text.expose()).map_err(|_| LoginError::NotAnObject { provider: name(), fields: fields() })?;
    if let Some(field) = values.keys().find(|key| !provider.fields.iter().any(|field| field.name == **key)) {
        return Err(LoginError::UnknownField { provider: name(), field: field.clone(), fields: fields() });
    }
    if values.len() < provider.fields.len() {
        return Err(LoginError::NotAnObject { provider: name(), fields: fields() });
    }
    Ok(values)
}

fn check(provider: &Provider, name: &str, value: &str) -> Result<(), LoginError> {
    let field = provider.fields.iter().find(|field| field.name == name);
    let label = || field.map_or_else(|| name.to_owned(), |field| field.label.clone());
    if value.is_empty() {
        return Err(LoginError::Empty(label()));
    }
    if value.chars().any(char::is_control) {
        return Err(LoginError::ControlCharacter(label()));
    }
    if value == provider::PLACEHOLDER || value == provider.placeholder {
        return Err(LoginError::Placeholder(label()));
    }
    match &provider.key_pattern {
        Some(pattern) if name == "api_key" && !pattern.is_match(value.as_bytes()) => {
            // As the definition writes it, not as it was compiled.
            let pattern = provider.document["api_key"]["key_pattern"].as_str().unwrap_or(pattern.as_str()).to_owned();
            Err(LoginError::Pattern { label: label(), provider: provider.display_name.clone(), pattern })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_break_is_not_part_of_the_key() {
        for (input, want) in [("key\n", "key"), ("key\r\n", "key"), ("key", "key"), ("key\n\n", "key\n"), (" key ", " key ")] {
            assert_eq!(read(&mut input.as_bytes()).unwrap().expose(), want, "{input:?}");
        }
    }

    #[test]
    fn nothing_on_stdin_is_a_cancelled_input() {
        for input in ["", "\n", "\r\n"] {
            assert!(matches!(read(&mut input.as_bytes()), Err(LoginError::Cancelled)), "{input:?}");
        }
    }

    #[test]
    fn a_file_too_long_and_bytes_that_are_no_text_are_refused() {
        assert!(matches!(read(&mut io::repeat(b'a')), Err(LoginError::TooLong(MAX_INPUT))));
        assert!(matches!(read(&mut &b"\xff\xfe"[..]), Err(LoginError::NotText)));
    }
}
