//! Credentials at the moment of use: [`Resolver`] finds one, [`apply`] is the only code that writes it.
use crate::{provider::ProviderName, route::Forward, secret::Secret};
use http::Request;
use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc};

/// A provider's `inject` list (or what `api_key` says of it), compiled.
#[derive(Debug)]
pub struct Injection {}

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
    Inject(Grant),
    Unchanged(Forward),
}

/// A request that may leave. Made only by [`apply`].
pub struct Authorized<B> {
    _request: Request<B>,
}

impl<B> Authorized<B> {
    pub fn into_request(self) -> Request<B> {
        self._request
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("placeholder")]
    Placeholder,
}

/// Writes the credential where the rules say, over whatever the client sent; header values are marked sensitive.
pub fn apply<B>(_permit: Permit, _request: Request<B>) -> Result<Authorized<B>, ApplyError> {
    todo!()
}
