//! `authsome run --transparent`: the command lives in a network namespace, and nothing leaves it unseen.

use std::{
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use super::{
    RunError,
    common::{self, DataPlane},
    harden,
    options::RunOptions,
    plan::Plan,
    ports, proxies,
    sandbox::{self, Sandbox},
    say,
    session::{self, Services, Sockets},
    settle,
    signals::{Signals, Terminal},
};
use crate::{
    config::Config,
    dns,
    proxy::{self, tls::Authority},
};

/// Undoes what a killed run left on the host.
pub use netns::uplink::sweep;

/// `authsome run --transparent`: the command's exit code.
pub fn transparent(options: &RunOptions, config: &Config) -> Result<u8, RunError> {
    proxies::conceal(&options.upstream)?;
    sweep()?;
    let plan = Plan::new(options, config)?;
    if options.dry_run {
        let _ = io::stdout().write_all(plan.to_string().as_bytes());
        return Ok(0);
    }
    let published = ports::publish(&plan.publish)?;
    let signals = Signals::block().map_err(|errno| RunError::System("block signals", errno))?;
    let _terminal = Terminal::save();
    let mut sandbox = Sandbox::start(&plan)?;
    // While init binds its listeners. Of the run's own key nothing is worth reading before the command is there, and by then it is sealed.
    let authority = Authority::new()?;
    let listening = sandbox.listening(&plan)?;
    let exposed = plan.expose.iter().map(|&port| Ok((port, sandbox.supervisor().exposed()?))).collect::<Result<_, RunError>>()?;
    // The clone is made; from here on this process may hold the user's secrets.
    sandbox::seal_memory().map_err(|errno| RunError::System("seal the supervisor's memory", errno))?;
    sandbox::raise_descriptor_limit().map_err(|errno| RunError::System("raise the limit of open files", errno))?;
    let uplink = sandbox.connect(&plan, &listening)?;
    if plan.identity.groups.is_some() {
        harden::drop_bounding_set().map_err(|error| RunError::Capabilities(error.to_string()))?;
    }
    plan.identity.assume_keeping(uplink.is_some())?;
    sandbox.configure(&authority, uplink)?;
    let services = services(&plan, options, config, authority)?;
    let audit = services.context.audit.clone();
    let runtime = session::runtime()?;
    for store in sandbox.supervisor().prepared()? {
        say(&store);
    }
    common::announce(options.verbosity, &plan.undecided, &plan.headline(), &[], &plan);
    let code = session::serve(runtime, &sandbox, Sockets { listening, exposed, published }, services, signals, config.audit_required);
    let cleanup = sandbox.finish(code.is_ok());
    tell_made(&plan);
    match (settle(code, &audit, config.audit_required), cleanup) {
        (Ok(code), Ok(())) => Ok(code),
        (Err(error), Ok(())) | (Ok(_), Err(error)) => Err(error),
        (Err(run), Err(cleanup)) => Err(RunError::Both { run: Box::new(run), cleanup: Box::new(cleanup) }),
    }
}

/// Whatever the verbosity: nothing else tells of a start-up file that was made.
fn tell_made(plan: &Plan) {
    let home = &plan.identity.home;
    let shown = |path: &Path| path.strip_prefix(home).map_or(path.display().to_string(), |name| format!("~/{}", name.display()));
    // What a link leads to is the program's word: nothing for a terminal to obey.
    let made: Vec<_> = plan.survey.made().into_iter().map(|path| shown(path).escape_debug().to_string()).collect();
    if !made.is_empty() {
        let names = made.join(", ");
        say(&format!("made during the run, and later run outside of it: {names} (hint: read it before you open a shell or log in)"));
    }
}

/// The data plane, with nothing opened that can wait for the first request.
fn services(plan: &Plan, options: &RunOptions, config: &Config, authority: Authority) -> Result<Services, RunError> {
    let data_plane = DataPlane {
        id: &plan.id,
        home: &plan.home,
        connected: &plan.connected,
        passthrough: &plan.passthrough,
        policy: &plan.policy,
        upstream_ca: &plan.upstream_ca,
        proxies: &plan.proxies,
        allow_host_addresses: false,
    };
    let context = Arc::new(data_plane.context(options, config, authority)?);
    let proxies = plan.proxies.clone();
    let upstreams = dns::Upstreams::system().map_err(RunError::Resolvers)?.permitting(proxy::lookups(context.clone()));
    Ok(Services {
        upstreams: if proxies.is_empty() { upstreams } else { upstreams.known_by_others(move |host| proxies.look_up(host)) },
        context,
        v6: netns::link::has_default_route(true)?,
    })
}
