//! The way in of a namespace: listeners bound inside it, which its ruleset redirects connections to.

use std::{io, net::SocketAddr, sync::Arc};

use netns::orig_dst::OrigDstError;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
};

use super::{Context, accept::accept_loop, connection::serve_connection, opaque};
use crate::{
    audit::{Blame, Verdict},
    host::Target,
};

/// Serves redirected connections until the runtime ends. `listeners` are bound inside the namespace.
pub async fn serve(listeners: Vec<std::net::TcpListener>, context: Arc<Context>) -> io::Result<()> {
    let closed = Arc::new(Notify::new());
    let mut loops = JoinSet::new();
    for listener in listeners {
        listener.set_nonblocking(true)?;
        let context = context.clone();
        let serve = move |stream, client| connection(stream, client, context.clone());
        loops.spawn(accept_loop(TcpListener::from_std(listener)?, closed.clone(), serve));
    }
    match loops.join_next().await {
        None => Ok(()),
        Some(ended) => Err(io::Error::other(match ended {
            Ok(never) => match never {},
            Err(error) => error,
        })),
    }
}

async fn connection(stream: TcpStream, client: SocketAddr, context: Arc<Context>) {
    match netns::orig_dst(&stream) {
        Ok(original) => serve_connection(stream, original.addr(), context).await,
        // A link-local address: nothing of the kind is gone to unless the user named it.
        Err(OrigDstError::Refused(addr)) if context.upstream.names(addr) => serve_connection(stream, addr, context).await,
        Err(error) => {
            let target = Target { host: client.ip().into(), port: client.port() };
            let mut guard = context.audit.begin("tcp", target, None);
            guard.verdict(Verdict::Refused, error.to_string());
            guard.blame(Blame::Downstream, error.to_string());
            opaque::reset(stream);
        }
    }
}
