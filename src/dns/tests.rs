//! The stub between real sockets: a client on one side, resolvers that each test makes up on the other.

use super::{resolv_conf::ResolvConf, *};
use crate::host::Host;
use hickory_proto::{
    op::{Message, MessageType, Query as Question},
    rr::{Name, RData, Record, RecordType, rdata::A},
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Mutex,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};

/// What a resolver was asked: the message and the port that it came from.
type Asked = Arc<Mutex<Vec<(Message, u16)>>>;

/// A resolver on a port of its own, UDP and TCP; `answer` fills in the response. False: it stays silent.
async fn resolver(answer: impl Fn(&mut Message, Transport) -> bool + Clone + Send + 'static) -> (SocketAddr, Asked) {
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = udp.local_addr().unwrap();
    let tcp = TcpListener::bind(addr).await.unwrap();
    let asked = Asked::default();
    let reply = move |bytes: &[u8], port: u16, asked: &Asked, transport| {
        let mut message = Message::from_vec(bytes).unwrap();
        asked.lock().unwrap().push((message.clone(), port));
        message.metadata.message_type = MessageType::Response;
        answer(&mut message, transport).then(|| message.to_vec().unwrap())
    };
    let (log, udp_reply) = (asked.clone(), reply.clone());
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = udp.recv_from(&mut buffer).await {
            if let Some(bytes) = udp_reply(&buffer[..length], client.port(), &log, Transport::Udp) {
                udp.send_to(&bytes, client).await.unwrap();
            }
        }
    });
    let log = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, client)) = tcp.accept().await {
            let bytes = receive(&mut stream).await;
            if let Some(bytes) = reply(&bytes, client.port(), &log, Transport::Tcp) {
                forward::write_framed(&mut stream, &bytes).await.unwrap();
            }
        }
    });
    (addr, asked)
}

async fn receive(stream: &mut TcpStream) -> Vec<u8> {
    let length = stream.read_u16().await.unwrap();
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await.unwrap();
    bytes
}

/// An address that nobody listens on.
fn nobody() -> SocketAddr {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A stub that is being served, and a client's way to it.
struct Served {
    udp: SocketAddr,
    tcp: SocketAddr,
    names: Arc<Names>,
}

fn upstreams(servers: &[SocketAddr]) -> Upstreams {
    Upstreams::fixed(ResolvConf { servers: servers.to_vec(), timeout: Duration::from_secs(20), attempts: 2, rotate: false })
}

fn served(upstreams: Upstreams) -> Served {
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let names = Arc::new(Names::default());
    let served = Served { udp: udp.local_addr().unwrap(), tcp: tcp.local_addr().unwrap(), names: names.clone() };
    tokio::spawn(serve(Sockets { udp: vec![udp], tcp: vec![tcp] }, upstreams, names, false));
    served
}

fn question(id: u16, name: &str, record_type: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.id = id;
    message.add_query(Question::query(Name::from_ascii(name).unwrap(), record_type));
    message
}

impl Served {
    async fn ask_bytes(&self, bytes: &[u8]) -> Message {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(self.udp).await.unwrap();
        client.send(bytes).await.unwrap();
        let mut buffer = [0; 4096];
        let length = client.recv(&mut buffer).await.unwrap();
        Message::from_vec(&buffer[..length]).unwrap()
    }

    async fn ask(&self, name: &str) -> Message {
        let question = question(77, name, RecordType::A);
        let answer = self.ask_bytes(&question.to_vec().unwrap()).await;
        assert_eq!((answer.metadata.id, &answer.queries), (77, &question.queries));
        answer
    }
}

/// Answers with addresses: one for each letter of the name's first label.
fn addresses(message: &mut Message, _: Transport) -> bool {
    let name = message.queries[0].name().clone();
    let label = name.iter().next().unwrap().to_vec();
    message.answers = label.iter().map(|letter| Record::from_rdata(name.clone(), 60, RData::A(A::new(203, 0, 113, *letter)))).collect();
    true
}

fn silent(_: &mut Message, _: Transport) -> bool {
    false
}

#[tokio::test]
async fn questions_go_to_the_users_resolver_and_names_are_learnt() {
    let (server, asked) = resolver(addresses).await;
    let stub = served(upstreams(&[server]));
    for _ in 0..8 {
        assert_eq!(stub.ask("a.acme.test.").await.answers.len(), 1);
    }
    assert_eq!(stub.names.name(IpAddr::from([203, 0, 113, b'a'])), "a.acme.test".parse().ok());
    assert_eq!(stub.names.name(IpAddr::from([203, 0, 113, b'b'])), None);
    let asked = asked.lock().unwrap();
    let distinct = |of: fn(&(Message, u16)) -> u16| asked.iter().map(of).collect::<std::collections::HashSet<_>>().len();
    assert_eq!(asked.len(), 8);
    assert!(distinct(|(message, _)| message.metadata.id) > 4 && distinct(|(_, port)| *port) > 4);
}

#[tokio::test]
async fn a_dead_resolver_is_passed_over() {
    let (server, _) = resolver(addresses).await;
    let (broken, _) = resolver(|message, _| {
        message.metadata.response_code = ResponseCode::ServFail;
        true
    })
    .await;
    let stub = served(upstreams(&[nobody(), broken, server]));
    assert_eq!(stub.ask("a.acme.test.").await.answers.len(), 1);
    let stub = served(upstreams(&[nobody(), broken]));
    assert_eq!(stub.ask("a.acme.test.").await.metadata.response_code, ResponseCode::ServFail);
    let stub = served(upstreams(&[nobody()]));
    assert_eq!(stub.ask("a.acme.test.").await.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn a_silent_resolver_is_given_up() {
    let ((mute, asked), (server, _)) = (resolver(silent).await, resolver(addresses).await);
    let conf = ResolvConf { servers: vec![mute, server], timeout: Duration::from_millis(100), attempts: 1, rotate: false };
    let stub = served(Upstreams::fixed(conf));
    assert_eq!(stub.ask("a.acme.test.").await.answers.len(), 1);
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_forged_answer_is_not_taken() {
    let (server, _) = resolver(|message, transport| {
        message.metadata.id ^= 1;
        addresses(message, transport)
    })
    .await;
    let conf = ResolvConf { servers: vec![server], timeout: Duration::from_millis(100), attempts: 1, rotate: false };
    assert_eq!(served(Upstreams::fixed(conf)).ask("a.acme.test.").await.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn denied_and_local_names_never_leave() {
    let (server, asked) = resolver(addresses).await;
    let allowed: Host = "a.acme.test".parse().unwrap();
    let stub = served(upstreams(&[server]).permitting(move |host| *host == allowed));
    assert_eq!(stub.ask("A.acme.test.").await.answers.len(), 1);
    for name in ["c2VjcmV0.evil.test.", "b.acme.test.", ".", "7.113.0.203.in-addr.arpa.", "a\\.b.acme.test."] {
        assert_eq!(stub.ask(name).await.metadata.response_code, ResponseCode::NXDomain, "{name}");
    }
    assert_eq!(stub.ask("localhost.").await.answers[0].data, RData::A(A(Ipv4Addr::LOCALHOST)));
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn malformed_messages_are_refused_and_the_next_is_served() {
    let (server, asked) = resolver(addresses).await;
    let stub = served(upstreams(&[server]));
    let answer = stub.ask_bytes(&[0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 0x0c]).await;
    assert_eq!((answer.metadata.id, answer.metadata.response_code), (9, ResponseCode::FormErr));
    assert!(asked.lock().unwrap().is_empty());
    assert_eq!(stub.ask("a.acme.test.").await.answers.len(), 1);
}

#[tokio::test]
async fn a_cut_answer_is_fetched_whole_for_a_tcp_client_only() {
    let (server, _) = resolver(|message, transport| {
        message.metadata.truncation = transport == Transport::Udp;
        transport == Transport::Udp || addresses(message, transport)
    })
    .await;
    let stub = served(upstreams(&[server]));
    let cut = stub.ask("abc.acme.test.").await;
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    let mut client = TcpStream::connect(stub.tcp).await.unwrap();
    forward::write_framed(&mut client, &question(5, "abc.acme.test.", RecordType::A).to_vec().unwrap()).await.unwrap();
    let whole = Message::from_vec(&receive(&mut client).await).unwrap();
    assert!(!whole.metadata.truncation && whole.answers.len() == 3);
}

#[tokio::test]
async fn an_answer_too_long_for_udp_is_cut() {
    let (server, _) = resolver(addresses).await;
    let stub = served(upstreams(&[server]));
    let answer = stub.ask(&format!("{}.acme.test.", "a".repeat(40))).await;
    assert!(answer.metadata.truncation && answer.answers.is_empty());
}

#[tokio::test]
async fn pipelined_tcp_questions_are_all_answered() {
    let (server, _) = resolver(addresses).await;
    let stub = served(upstreams(&[server]));
    let mut client = TcpStream::connect(stub.tcp).await.unwrap();
    for id in 0..50 {
        forward::write_framed(&mut client, &question(id, "ab.acme.test.", RecordType::A).to_vec().unwrap()).await.unwrap();
    }
    client.shutdown().await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..50 {
        let answer = Message::from_vec(&receive(&mut client).await).unwrap();
        assert_eq!(answer.answers.len(), 2);
        ids.push(answer.metadata.id);
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..50).collect::<Vec<_>>());
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

/// Of which nothing passes unless the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn questions_that_nobody_answers_give_way() {
    let (server, asked) =
        resolver(|message, transport| !message.queries[0].name().to_string().starts_with("silent") && addresses(message, transport)).await;
    let patient = ResolvConf { servers: vec![server], timeout: Duration::from_secs(3600), attempts: 1, rotate: false };
    let served = served(Upstreams::fixed(patient));
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(served.udp).await.unwrap();
    for n in 0..300 {
        client.send(&question(n, &format!("silent{n}.example."), RecordType::A).to_vec().unwrap()).await.unwrap();
        // One after the other, so that none is lost on the way.
        while asked.lock().unwrap().len() <= usize::from(n) {
            tokio::task::yield_now().await;
        }
    }
    let answer = tokio::time::timeout(PATIENCE, served.ask("ab.example.")).await.expect("an answer beside 300 that wait");
    assert_eq!(answer.answers.len(), 2);
}

#[tokio::test]
async fn connections_that_say_nothing_give_way() {
    let (server, _) = resolver(addresses).await;
    let served = served(upstreams(&[server]));
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(served.tcp).await.unwrap());
    }
    let asking = async {
        let mut stream = TcpStream::connect(served.tcp).await.unwrap();
        forward::write_framed(&mut stream, &question(7, "ab.example.", RecordType::A).to_vec().unwrap()).await.unwrap();
        receive(&mut stream).await
    };
    // Shorter than a connection may be silent.
    let answer = tokio::time::timeout(PATIENCE / 2, asking).await.expect("an answer beside 100 silent connections");
    assert_eq!(Message::from_vec(&answer).unwrap().answers.len(), 2);
}
