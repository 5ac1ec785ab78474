//! The supervisor's hold on the sandbox: start it, give it what it needs, say "go", hear how it ends.

use std::{io, os::fd::AsFd};

use netns::{
    link::IpNet,
    spawn::{self, Child, Ids, Namespaces},
    uplink::{Uplink, pasta::Pasta},
    userns::{self, Gate},
};
use nix::sys::prctl;
use tokio::io::unix::AsyncFd;

use crate::{proxy::tls::Authority, upstream};

use super::{
    RunError, init,
    message::{Configure, Init, Listening, Supervisor},
    plan::{Egress, Plan},
    rules, say,
};

/// Namespaces with everything in them. Dropping it kills whatever runs inside and removes what the uplink changed on the host.
pub struct Sandbox {
    /// Dropped first: with the last process go namespace, links and rules.
    child: Child,
    uplink: Option<Uplink>,
    pasta: Option<Pasta>,
}

impl Sandbox {
    /// Clones init. Until this returns the process must have held no secret.
    pub fn start(plan: &Plan) -> Result<Self, RunError> {
        let started = spawn::spawn(namespaces(plan), |channel| init::main(Init(channel), plan));
        Ok(Self { child: started.map_err(|error| explain(plan, error.into()))?, uplink: None, pasta: None })
    }

    /// What init has bound.
    pub fn listening(&self, plan: &Plan) -> Result<Listening, RunError> {
        self.supervisor().listening().map_err(|error| explain(plan, error))
    }

    pub fn supervisor(&self) -> Supervisor<'_> {
        Supervisor(&self.child.channel)
    }

    /// Plugs the namespace into the host and keeps only what the undo needs (CAP_NET_ADMIN).
    pub fn connect(&mut self, plan: &Plan, listening: &Listening) -> Result<Option<String>, RunError> {
        match &plan.egress {
            Egress::Relay => {}
            Egress::Veth => {
                let denied = upstream::forbidden_networks().into_iter().map(|(addr, prefix)| IpNet { addr, prefix });
                self.uplink = Some(Uplink::create(listening.namespace.as_fd(), &denied.collect::<Vec<_>>())?);
            }
            Egress::Pasta(program) => self.pasta = Some(Pasta::start(program, self.child.pid(), &plan.barred)?),
        }
        let inner = self.uplink.as_ref().map(Uplink::inner).or_else(|| self.pasta.as_ref().map(Pasta::inner));
        Ok(inner.map(ToString::to_string))
    }

    /// Waits until pasta has ended, which it does not by itself; without it, for ever. The constructor is deprecated for
    /// one that is `unsafe`; a channel keeps its descriptor.
    #[expect(deprecated)]
    pub async fn pasta_ended(&self) -> io::Result<()> {
        let Some(pasta) = &self.pasta else { return std::future::pending().await };
        loop {
            let _ = AsyncFd::new(pasta.as_fd())?.readable().await?;
            let address = pasta.stopped_for()?;
            say(&format!(
                "pasta is stopped: this host now has the address {address}, which the run's rules do not bar; only TCP and DNS go on"
            ));
        }
    }

    /// Sends what only this side knows.
    pub fn configure(&self, authority: &Authority, uplink: Option<String>) -> Result<(), RunError> {
        let certificate = authority.certificate_pem().to_owned();
        self.supervisor().configure(Configure { certificate, common_name: authority.common_name().to_owned(), uplink })
    }

    /// Waits for the end of every process inside, then undoes what was done outside. Where the command did not end by itself it is told to:
    /// nothing serves it any more.
    pub fn finish(self, ended: bool) -> Result<(), RunError> {
        if !ended {
            self.child.channel.end();
        }
        let waited = self.child.wait().map(drop);
        drop(self.pasta);
        let undone = self.uplink.map_or(Ok(()), Uplink::remove);
        waited?;
        Ok(undone?)
    }
}

pub fn namespaces(plan: &Plan) -> Namespaces {
    let ids = Ids { uid: plan.identity.uid.as_raw(), gid: plan.identity.gid.as_raw() };
    Namespaces { user: plan.identity.groups.is_none().then_some(ids) }
}

/// Where the kernel refused, finds out which gate is closed.
fn explain(plan: &Plan, error: RunError) -> RunError {
    match userns::probe(namespaces(plan), &plan.rules()) {
        Err(gate) => RunError::Gate(gate),
        Ok(()) => error,
    }
}

/// Whether this user can have a sandbox on this machine.
pub fn probe(namespaces: Namespaces) -> Result<(), Gate> {
    userns::probe(namespaces, &rules::inside(None, None))
}

/// Nobody of the same uid may read this process's memory from here on (ptrace(2), PTRACE_MODE_READ), and it leaves no core.
pub fn seal_memory() -> nix::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    prctl::set_dumpable(false)?;
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE)?;
    setrlimit(Resource::RLIMIT_CORE, 0, hard)
}

/// A connection takes several descriptors here and one inside, so the soft limit goes as far as the user may raise it. Only after the clone:
/// the command keeps its own, since select(2) of some programs breaks above 1024.
pub fn raise_descriptor_limit() -> nix::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
}
