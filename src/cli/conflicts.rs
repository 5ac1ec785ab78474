//! Hosts that two connected providers claim.
use crate::{
    provider::Provider,
    route::{Route, Table},
};

/// One sentence for each, with how to resolve it.
pub fn among<'a>(connected: impl Iterator<Item = &'a Provider>) -> Vec<String> {
    let routes =
        connected.flat_map(|provider| provider.api_urls.iter().map(|url| Route { provider: provider.name.clone(), url: url.clone() }));
    let _table = Table::new(routes.collect(), Vec::new());
    Vec::new()
}
