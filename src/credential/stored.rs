//! The [`Resolver`] of a run: credentials of the chosen connections, unsealed when first used.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    provider::{Provider, ProviderName},
    vault::{ConnectionName, Kind, Record, Vault},
};

use super::{Credential, Grant, Injection, Needles, Resolver, Unavailable};

/// Reads the vault; keeps what it has unsealed for the rest of the run.
pub struct Stored {
    vault: Vault,
    connections: HashMap<ProviderName, Connection>,
}

struct Connection {
    name: ConnectionName,
    injection: Arc<Injection>,
    oauth_injection: Arc<Injection>,
    placeholder: Arc<str>,
    /// The names of the secret fields, where the definition does not turn scrubbing off.
    scrubbed: Vec<String>,
    unsealed: Mutex<Option<Unsealed>>,
}

#[derive(Clone)]
struct Unsealed {
    credential: Arc<Credential>,
    needles: Option<Arc<Needles>>,
    oauth: bool,
    /// Seconds since the epoch.
    expires_at: Option<i64>,
}

impl Stored {
    pub fn new<'a>(vault: Vault, chosen: impl IntoIterator<Item = (&'a Provider, &'a ConnectionName)>) -> Self {
        let connections = chosen.into_iter().map(|(provider, name)| {
            let connection = Connection {
                name: name.clone(),
                injection: provider.injection.clone(),
                oauth_injection: provider.oauth_injection.clone(),
                placeholder: provider.placeholder.as_str().into(),
                scrubbed: provider.scrubbed_fields(),
                unsealed: Mutex::new(None),
            };
            (provider.name.clone(), connection)
        });
        Self { vault, connections: connections.collect() }
    }

    fn grant(&self, provider: &ProviderName) -> Result<Grant, Unavailable> {
        let login = format!("authsome login {provider}");
        let unavailable = |message: String| Unavailable { message, hint: login.clone() };
        let connection = self.connections.get(provider).ok_or_else(|| unavailable(format!("{provider} is not connected")))?;
        let mut slot = connection.unsealed.lock().unwrap_or_else(PoisonError::into_inner);
        let unsealed = match &*slot {
            Some(unsealed) => unsealed.clone(),
            None => {
                let record = self.vault.load(provider, &connection.name).map_err(|error| unavailable(error.to_string()))?;
                let record = record.ok_or_else(|| unavailable(format!("connection `{}` of {provider} is gone", connection.name)))?;
                slot.insert(Unsealed::new(record, &connection.scrubbed)).clone()
            }
        };
        if unsealed.expires_at.is_some_and(|at| at <= jiff::Timestamp::now().as_second()) {
            // Read again next time: another process may have renewed it.
            *slot = None;
            return Err(unavailable(format!("the access token of {provider} has expired")));
        }
        Ok(Grant {
            provider: provider.clone(),
            injection: if unsealed.oauth { connection.oauth_injection.clone() } else { connection.injection.clone() },
            credential: unsealed.credential,
            placeholder: connection.placeholder.clone(),
            needles: unsealed.needles,
        })
    }
}

impl Resolver for Stored {
    /// Ready at once: unsealing takes less than a millisecond and happens once per provider and run.
    fn resolve<'a>(&'a self, provider: &'a ProviderName) -> Pin<Box<dyn Future<Output = Result<Grant, Unavailable>> + Send + 'a>> {
        Box::pin(std::future::ready(self.grant(provider)))
    }
}

impl Unsealed {
    fn new(record: Record, scrubbed: &[String]) -> Self {
        let oauth = matches!(record.kind, Kind::OAuth { .. });
        let (fields, expires_at) = match record.kind {
            Kind::ApiKey { fields } => (fields, None),
            Kind::OAuth { access_token, expires_at, .. } => (BTreeMap::from([("access_token".to_owned(), access_token)]), expires_at),
        };
        let secret = fields.iter().filter(|(name, _)| scrubbed.contains(name)).map(|(_, value)| value.expose().as_str());
        let needles = Needles::new(secret);
        Self { credential: Arc::new(Credential { fields }), needles, oauth, expires_at }
    }
}
