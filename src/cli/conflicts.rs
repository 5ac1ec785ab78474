//! Hosts that two connected providers claim.
use super::{context::Context, report::Failure};
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

/// Those of one definition with the providers that are connected: only they are ever injected.
pub fn of(context: &Context, definition: &Provider) -> Result<Vec<String>, Failure> {
    let catalog = context.catalog()?;
    let mut others: Vec<Provider> = Vec::new();
    for (name, _) in context.vault()?.connections()? {
        if name != definition.name && !others.iter().any(|other| other.name == name) {
            others.extend(catalog.find(&name, None)?);
        }
    }
    let all = among(others.iter().chain([definition]));
    Ok(all.into_iter().filter(|conflict| conflict.contains(definition.name.as_str())).collect())
}
