//! Credentials at the moment of use: [`Resolver`] finds one, [`apply`] is the only code that writes it.

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc};

use crate::{host::Host, provider::ProviderName, route::Forward, secret::Secret};

mod apply;
mod injection;
mod needles;
mod sieve;
mod stored;

pub use apply::{ApplyError, Authorized, apply};
pub use injection::{Injection, InjectionError};
pub use needles::{LazyNeedles, Needles};
pub use stored::Stored;

/// A connection's values by field name (`api_key`, `sid`, `access_token`).
pub struct Credential {
    pub fields: BTreeMap<String, Secret<String>>,
}

/// One resolved injection: the rules and the values they need.
#[derive(Clone)]
pub struct Grant {
    pub provider: ProviderName,
    pub injection: Arc<Injection>,
    pub credential: Arc<Credential>,
    /// What the child sends where the key belongs (path injection replaces it).
    pub placeholder: Arc<str>,
    /// What must not come back in a response; `None` where nothing is looked for.
    pub needles: Option<Arc<Needles>>,
}

/// Why a credential cannot be had; `hint` is the command that mends it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Unavailable {
    pub message: String,
    pub hint: String,
}

pub trait Resolver: Send + Sync {
    fn resolve<'a>(&'a self, provider: &'a ProviderName) -> Pin<Box<dyn Future<Output = Result<Grant, Unavailable>> + Send + 'a>>;
}

/// What may happen to a request inside an opened connection.
pub enum Permit {
    /// Write this; `host` is the one the connection was proved to be to.
    Inject {
        grant: Grant,
        host: Host,
    },
    Unchanged(Forward),
}
