//! Hosts that two connected providers claim.
use crate::{
    provider::Provider,
    route::{Conflict, Route, Table},
};

/// One sentence for each, as a run would say it.
pub fn among<'a>(connected: impl Iterator<Item = &'a Provider>) -> Vec<String> {
    let routes =
        connected.flat_map(|provider| provider.api_urls.iter().map(|url| Route { provider: provider.name.clone(), url: url.clone() }));
    let conflicts = Table::new(routes.collect(), Vec::new(), Vec::new()).conflicts();
    let sentence = |Conflict { claimed, a, b }| format!("ambiguous host match: {claimed} claimed by {a} and {b}; not injected");
    conflicts.into_iter().map(sentence).collect()
}
