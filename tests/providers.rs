//! Every bundled definition: parses, is safe, and writes what the provider's own documentation asks for.

// Helpers of tests may panic as the tests themselves do.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fs, sync::Arc};

use authsome::{
    credential::{Credential, Grant, Permit, apply},
    provider::{AuthType, Catalog, Provider},
    secret::Secret,
};
use http::Request;

fn catalog() -> Vec<Provider> {
    let catalog = Catalog::open("/nonexistent".as_ref()).unwrap();
    let parsed = catalog.names().into_iter().map(|name| catalog.find(&name, Some("https://acme.test")).unwrap().unwrap());
    parsed.collect()
}

/// `METHOD-less` request to `host` and `path` with every field set to its own upper-case name.
fn injected(provider: &Provider, host: &str, path: &str) -> Request<()> {
    let fields: BTreeMap<_, _> = provider.fields.iter().map(|field| (field.name.clone(), Secret::new(field.name.to_uppercase()))).collect();
    let grant = Grant {
        provider: provider.name.clone(),
        injection: provider.injection.clone(),
        credential: Arc::new(Credential { fields }),
        placeholder: provider.placeholder.as_str().into(),
        needles: None,
    };
    let request = Request::get(path).body(()).unwrap();
    apply(Permit::Inject { grant, host: host.parse().unwrap() }, request).unwrap().into_request()
}

/// What a request to a provider's API carries, as text: `name: value` for each header, or the path and query.
fn shape(name: &str, host: &str, path: &str) -> Vec<String> {
    let all = catalog();
    let provider = all.iter().find(|provider| provider.name.as_str() == name).unwrap_or_else(|| panic!("no provider {name}"));
    assert!(
        provider.api_urls.iter().any(|url| url.claims(&authsome::host::Target { host: host.parse().unwrap(), port: 443 }, path)),
        "{name} claims {host}{path}"
    );
    let request = injected(provider, host, path);
    let mut lines: Vec<String> = request.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    if *request.uri() != *path {
        lines.push(request.uri().to_string());
    }
    lines
}

#[test]
fn there_are_more_than_sixty_for_keys_and_every_one_parses() {
    let all = catalog();
    assert!(all.iter().filter(|provider| provider.auth_type == AuthType::ApiKey).count() >= 60);
    for provider in &all {
        assert!(!provider.api_urls.is_empty(), "{}: no api_url", provider.name);
        assert!(!provider.exports.is_empty(), "{}: no export", provider.name);
        assert_eq!(provider.auth_type == AuthType::OAuth2, !provider.endpoints.is_empty(), "{}", provider.name);
    }
}

#[test]
fn files_are_named_after_their_providers() {
    for provider in catalog() {
        let path = format!("{}/providers/{}.json", env!("CARGO_MANIFEST_DIR"), provider.name);
        assert!(fs::exists(&path).unwrap(), "{path}");
    }
}

#[test]
fn keys_go_where_each_api_wants_them() {
    for (name, host, path, want) in [
        ("openai", "api.openai.com", "/v1/models", "authorization: Bearer API_KEY"),
        ("anthropic", "api.anthropic.com", "/v1/messages", "x-api-key: API_KEY"),
        ("gemini", "generativelanguage.googleapis.com", "/v1/models", "x-goog-api-key: API_KEY"),
        ("github", "api.github.com", "/user", "authorization: Bearer API_KEY"),
        ("github", "raw.githubusercontent.com", "/a/b/main/x", "authorization: Bearer API_KEY"),
        ("github", "github.com", "/acme/repo.git/info/refs", "authorization: Basic eC1hY2Nlc3MtdG9rZW46QVBJX0tFWQ=="),
        ("gitlab", "gitlab.com", "/api/v4/user", "private-token: API_KEY"),
        ("gitlab", "gitlab.com", "/group/sub/repo.git/git-upload-pack", "authorization: Basic b2F1dGgyOkFQSV9LRVk="),
        ("stripe", "files.stripe.com", "/v1/files", "authorization: Bearer API_KEY"),
        ("notion", "api.notion.com", "/v1/users", "authorization: Bearer API_KEY"),
        ("slack", "slack.com", "/api/auth.test", "authorization: Bearer API_KEY"),
        ("linear", "api.linear.app", "/graphql", "authorization: API_KEY"),
        ("postmark", "api.postmarkapp.com", "/email", "x-postmark-server-token: API_KEY"),
        ("twilio", "api.twilio.com", "/2010-04-01/Accounts.json", "authorization: Basic U0lEOkFQSV9LRVk="),
        ("azure-openai", "acme.openai.azure.com", "/openai/models", "api-key: API_KEY"),
        ("elevenlabs", "api.elevenlabs.io", "/v1/voices", "xi-api-key: API_KEY"),
        ("deepgram", "api.deepgram.com", "/v1/listen", "authorization: Token API_KEY"),
        ("pinecone", "index.svc.pinecone.io", "/query", "api-key: API_KEY"),
        ("exa", "api.exa.ai", "/search", "x-api-key: API_KEY"),
        ("serper", "google.serper.dev", "/search", "x-api-key: API_KEY"),
        ("brave-search", "api.search.brave.com", "/res/v1/web/search", "x-subscription-token: API_KEY"),
        ("pagerduty", "api.pagerduty.com", "/incidents", "authorization: Token token=API_KEY"),
        ("figma", "api.figma.com", "/v1/me", "x-figma-token: API_KEY"),
        ("brevo", "api.brevo.com", "/v3/account", "api-key: API_KEY"),
        ("mailgun", "api.mailgun.net", "/v3/domains", "authorization: Basic YXBpOkFQSV9LRVk="),
        ("mailchimp", "us21.api.mailchimp.com", "/3.0/ping", "authorization: Basic YW55OkFQSV9LRVk="),
        ("ashby", "api.ashbyhq.com", "/apiKey.info", "authorization: Basic QVBJX0tFWTo="),
        ("lemlist", "api.lemlist.com", "/api/team", "authorization: Basic OkFQSV9LRVk="),
        ("hunter", "api.hunter.io", "/v2/account", "x-api-key: API_KEY"),
        ("semrush", "api.semrush.com", "/?type=x", "/?type=x&key=API_KEY"),
        ("klaviyo", "a.klaviyo.com", "/api/accounts", "authorization: Klaviyo-API-Key API_KEY"),
        ("telegram", "api.telegram.org", "/bot0000000000:authsome-proxy-managed/getMe", "/botAPI_KEY/getMe"),
    ] {
        assert_eq!(shape(name, host, path), [want], "{name}");
    }
    assert_eq!(shape("datadog", "api.datadoghq.com", "/api/v1/validate"), ["dd-api-key: API_KEY", "dd-application-key: APP_KEY"]);
    assert_eq!(shape("algolia", "x-dsn.algolia.net", "/1/indexes"), ["x-algolia-api-key: API_KEY", "x-algolia-application-id: APP_ID"]);
}

/// What an OAuth connection's request carries in `authorization`.
fn authorized(name: &str, host: &str, path: &str) -> Option<String> {
    let provider = Catalog::open("/nonexistent".as_ref()).unwrap().find(&name.parse().unwrap(), None).unwrap().unwrap();
    let grant = Grant {
        provider: provider.name.clone(),
        injection: provider.oauth_injection.clone(),
        credential: Arc::new(Credential { fields: BTreeMap::from([("access_token".to_owned(), Secret::new("T".to_owned()))]) }),
        placeholder: provider.placeholder.as_str().into(),
        needles: None,
    };
    let request = Request::get(path).body(()).unwrap();
    let request = apply(Permit::Inject { grant, host: host.parse().unwrap() }, request).unwrap().into_request();
    request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned())
}

#[test]
fn access_tokens_go_where_each_api_wants_them() {
    for (name, host, path, want) in [
        ("github", "api.github.com", "/user", Some("Bearer T")),
        ("github", "uploads.github.com", "/repos/a/b/releases/1/assets", Some("Bearer T")),
        ("github", "github.com", "/acme/repo.git/info/refs", Some("Basic eC1hY2Nlc3MtdG9rZW46VA==")),
        ("github", "github.com", "/acme/repo/settings", None),
        ("gitlab", "gitlab.com", "/api/v4/user", Some("Bearer T")),
        ("gitlab", "gitlab.com", "/group/sub/repo.git/git-upload-pack", Some("Basic b2F1dGgyOlQ=")),
        ("gitlab", "gitlab.com", "/users/sign_in", None),
        ("linear", "api.linear.app", "/graphql", Some("Bearer T")),
        ("slack", "slack.com", "/api/auth.test", Some("Bearer T")),
        ("google-drive", "www.googleapis.com", "/drive/v3/files", Some("Bearer T")),
    ] {
        assert_eq!(authorized(name, host, path).as_deref(), want, "{name} {host}{path}");
    }
}

/// Those that say so themselves: one header, one scheme, nothing else changed.
#[test]
fn bearer_keys_are_written_as_rfc_6750_says() {
    let is_bearer = |provider: &Provider| {
        let written = &provider.document;
        written.get("inject").is_none() && written.pointer("/api_key/header_prefix").is_some_and(|prefix| prefix == "Bearer")
    };
    let all = catalog();
    let bearer: Vec<_> = all.iter().filter(|provider| is_bearer(provider)).collect();
    assert!(bearer.len() >= 40, "{}", bearer.len());
    for provider in bearer {
        let request = injected(provider, "api.acme.test", "/x?y=1");
        let headers: Vec<_> = request.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(
            (headers, request.uri().to_string().as_str()),
            (vec![("authorization", "Bearer API_KEY")], "/x?y=1"),
            "{}",
            provider.name
        );
    }
}

#[test]
fn keys_stay_off_the_rest_of_a_site() {
    let all = catalog();
    let github = all.iter().find(|provider| provider.name.as_str() == "github").unwrap();
    for path in ["/acme/repo", "/acme/repo/info/refs/x", "/login/oauth/access_token", "/a/b/c/info/refs"] {
        assert!(injected(github, "github.com", path).headers().is_empty(), "{path}");
    }
}

/// `providers/schema.json` says what the types say; with AUTHSOME_BLESS=1 it is written anew.
#[test]
fn the_schema_is_the_types() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/providers/schema.json");
    let schema = serde_json::to_string_pretty(&schemars::schema_for!(authsome::provider::schema::Document)).unwrap() + "\n";
    if std::env::var_os("AUTHSOME_BLESS").is_some() {
        fs::write(path, &schema).unwrap();
    }
    assert_eq!(fs::read_to_string(path).unwrap_or_default(), schema, "AUTHSOME_BLESS=1 cargo test --test providers writes it");
}
