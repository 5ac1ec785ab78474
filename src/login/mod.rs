//! Getting a credential from its owner into the vault.

pub mod api_key;
pub mod scan;

/// Why no credential was obtained. No variant repeats what was entered.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    #[error("input cancelled")]
    Cancelled,
    #[error("there is no terminal to ask on")]
    NoTerminal,
    #[error("cannot read the credential: {0}")]
    Read(#[source] std::io::Error),
    #[error("the credential is longer than {0} bytes")]
    TooLong(u64),
    #[error("the credential is not valid UTF-8")]
    NotText,
    #[error("the variable {0} is not set")]
    VariableUnset(String),
    #[error("{0} is empty")]
    Empty(String),
    #[error("{0} holds a line break or another control character")]
    ControlCharacter(String),
    #[error("{0} is a placeholder that authsome itself hands out, not a key")]
    Placeholder(String),
    #[error("{label} of {provider} does not have the form {pattern}")]
    Pattern { label: String, provider: String, pattern: String },
    #[error("{provider} takes several values: give a JSON object with {}", fields.join(", "))]
    NotAnObject { provider: String, fields: Vec<String> },
    #[error("{provider} has no field `{field}`; it has {}", fields.join(", "))]
    UnknownField { provider: String, field: String, fields: Vec<String> },
    #[error("the flow `{flow}` of {provider} is not in this version")]
    FlowUnsupported { provider: String, flow: String },
}
