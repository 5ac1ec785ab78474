//! Flags, environment and `config.toml` become one [`Config`], once.
