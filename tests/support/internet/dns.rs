//! The name server of the test internet.

use super::{API, DNS, HTTP1, OTHER, PROGRAMS, RAW, Shared, sockets::each};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{
            A, AAAA, HTTPS, SVCB, TXT,
            svcb::{Alpn, EchConfigList, SvcParamKey, SvcParamValue},
        },
    },
};
use std::{net, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UdpSocket,
};

/// Largest answer over UDP to a question without EDNS, in octets (RFC 1035 §4.2.1).
const MAX_UDP: usize = 512;

/// Questions for names in it are never answered.
const SILENT: &str = "silent.test.";

/// Each name and the last number of its addresses.
const ZONE: [(&str, u8); 12] = [
    ("api.openai.com.", API),
    ("api.acme.test.", API),
    ("h1.acme.test.", HTTP1),
    ("expired.acme.test.", API),
    ("wronghost.acme.test.", API),
    ("unknown.acme.test.", API),
    ("other.test.", OTHER),
    ("pinned.test.", OTHER),
    ("raw.test.", RAW),
    ("programs.acme.test.", PROGRAMS),
    ("ns.test.", DNS),
    ("svc.corp.test.", OTHER),
];

pub fn serve_udp(socket: net::UdpSocket, shared: Arc<Shared>) {
    socket.set_nonblocking(true).unwrap();
    let socket = UdpSocket::from_std(socket).unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            if let Some(reply) = answer(&buffer[..length], Some(MAX_UDP), &shared) {
                let _ = socket.send_to(&reply, peer).await;
            }
        }
    });
}

/// Two octets of length before each message (RFC 1035 §4.2.2).
pub fn serve_tcp(listener: net::TcpListener, shared: Arc<Shared>) {
    each(listener, move |mut stream| {
        let shared = shared.clone();
        async move {
            while let Ok(length) = stream.read_u16().await {
                let mut question = vec![0; usize::from(length)];
                if stream.read_exact(&mut question).await.is_err() {
                    return;
                }
                let Some(reply) = answer(&question, None, &shared) else { return };
                let framed = [&(reply.len() as u16).to_be_bytes()[..], &reply].concat();
                if stream.write_all(&framed).await.is_err() {
                    return;
                }
            }
        }
    });
}

fn answer(question: &[u8], limit: Option<usize>, shared: &Shared) -> Option<Vec<u8>> {
    let request = Message::from_vec(question).ok()?;
    let query = request.queries.first()?.clone();
    let name = query.name().to_lowercase();
    shared.questions.lock().unwrap().push(name.to_string());
    if Name::from_ascii(SILENT).unwrap().zone_of(&name) {
        return None;
    }
    let mut reply = Message::response(request.id, request.op_code);
    reply.metadata.recursion_desired = request.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.add_query(query.clone());
    match records(&name, query.query_type()) {
        Some(data) => reply.answers = data.into_iter().map(|data| Record::from_rdata(query.name().clone(), 60, data)).collect(),
        None => reply.metadata.response_code = ResponseCode::NXDomain,
    }
    let bytes = reply.to_vec().ok()?;
    if limit.is_some_and(|limit| bytes.len() > limit) {
        reply.metadata.truncation = true;
        reply.answers.clear();
        return reply.to_vec().ok();
    }
    Some(bytes)
}

/// `None` for a name that does not exist.
fn records(name: &Name, kind: RecordType) -> Option<Vec<RData>> {
    let text = name.to_string();
    if text == "big.test." {
        let lines = (0..20).map(|n| RData::TXT(TXT::new(vec![format!("{n:0100}")])));
        return Some(if kind == RecordType::TXT { lines.collect() } else { Vec::new() });
    }
    let (_, n) = ZONE.into_iter().find(|(known, _)| *known == text)?;
    Some(match kind {
        RecordType::A => vec![RData::A(A::new(203, 0, 113, n))],
        RecordType::AAAA => vec![RData::AAAA(AAAA(format!("2001:db8:113::{n}").parse().unwrap()))],
        RecordType::HTTPS => vec![RData::HTTPS(HTTPS(service()))],
        _ => Vec::new(),
    })
}

/// Invites to HTTP/3 and to an encrypted ClientHello (RFC 9460 §7.1.1, RFC 9848).
fn service() -> SVCB {
    let alpn = SvcParamValue::Alpn(Alpn(vec!["h3".into(), "h2".into()]));
    let ech = SvcParamValue::EchConfigList(EchConfigList(vec![0, 4, 0xfe, 0x0d, 0, 0]));
    SVCB::new(1, Name::root(), vec![(SvcParamKey::Alpn, alpn), (SvcParamKey::EchConfigList, ech)])
}
