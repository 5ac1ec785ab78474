//! DNS messages as the stub takes, makes and changes them (RFC 1035 §4). Pure.

use super::{PAGE, PAGE_V4, PAGE_V6};
use crate::host::Host;
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query as Question, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{
            A, AAAA, HTTPS, SVCB,
            svcb::{Alpn, Mandatory, SvcParamKey, SvcParamValue},
        },
    },
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Octets of a header (RFC 1035 §4.1.1).
const HEADER: usize = 12;
/// What a UDP client takes without EDNS, in octets (RFC 1035 §2.3.4).
const PLAIN_UDP: usize = 512;
/// What we say that we take, in octets: fits an unfragmented IPv6 packet (DNS flag day 2020).
const EDNS_UDP: u16 = 1232;
/// A browser that finds this name missing does not start DNS over HTTPS by itself (Mozilla's "canary domain").
const CANARY: &str = "use-application-dns.net.";
/// Where a client would learn of a resolver's encrypted twin (RFC 9462 §4); the resolver that the child sees has none.
const DISCOVERY: &str = "resolver.arpa.";
/// Seconds that our own answers may be cached; they never change.
const LOCAL_TTL: u32 = 86_400;

/// Seconds that a made-up address may be cached: a resolver may know the name the next time.
const MADE_UP_TTL: u32 = 5;

/// A well-formed question of the child.
pub struct Query {
    message: Message,
    question: Question,
}

impl Query {
    /// `Err`: the error message to send back; None for what is no query at all, which gets no answer.
    pub fn parse(bytes: &[u8]) -> Result<Self, Option<Vec<u8>>> {
        // An answer (QR set) is never answered, or two servers could keep each other busy for ever.
        let [high, low, flags, _, question_count @ ..] = bytes else { return Err(None) };
        if bytes.len() < HEADER || flags & 0x80 != 0 {
            return Err(None);
        }
        let id = u16::from_be_bytes([*high, *low]);
        let refuse = |code| Err(Message::error_msg(id, OpCode::Query, code).to_vec().ok());
        // Looked at before parsing, which would make room for as many questions as the header says.
        if !question_count.starts_with(&[0, 1]) {
            return refuse(ResponseCode::FormErr);
        }
        let Ok(mut message) = Message::from_vec(bytes) else { return refuse(ResponseCode::FormErr) };
        if message.metadata.op_code != OpCode::Query {
            return refuse(ResponseCode::NotImp);
        }
        let Some(question) = message.queries.pop() else { return refuse(ResponseCode::FormErr) };
        let query = Self { message, question };
        let transfer = matches!(query.question.query_type(), RecordType::AXFR | RecordType::IXFR);
        if transfer || query.question.query_class() != DNSClass::IN {
            return Err(Some(query.refuse(ResponseCode::Refused)));
        }
        Ok(query)
    }

    pub fn id(&self) -> u16 {
        self.message.metadata.id
    }

    /// The name asked for, if a host can have it.
    pub fn host(&self) -> Option<Host> {
        self.question.name().to_ascii().parse().ok()
    }

    /// The name, if a client connects to it: `_8443._https.api.acme.test` (RFC 9460 §2.3) only says something about another name.
    pub fn connectable(&self) -> Option<Host> {
        let service = self.question.name().iter().next().is_some_and(|label| label.starts_with(b"_"));
        self.host().filter(|_| !service)
    }

    /// Whether what is asked for is an address, or the service binding that clients ask for along with it.
    pub fn wants_address(&self) -> bool {
        matches!(self.question.query_type(), RecordType::A | RecordType::AAAA | RecordType::HTTPS | RecordType::SVCB)
    }

    /// The name has these addresses and nothing else.
    pub fn address(&self, v4: Ipv4Addr, v6: Option<Ipv6Addr>) -> Vec<u8> {
        let data = match self.question.query_type() {
            RecordType::A => Some(RData::A(A(v4))),
            RecordType::AAAA => v6.map(|v6| RData::AAAA(AAAA(v6))),
            _ => None,
        };
        let mut reply = self.reply(ResponseCode::NoError);
        reply.answers.extend(data.map(|data| Record::from_rdata(self.question.name().clone(), MADE_UP_TTL, data)));
        self.encode(reply)
    }

    /// The same question under an id that nobody can guess, and nothing else that the child may have put into its message but flags and EDNS.
    pub fn outgoing(&self) -> Message {
        let mut message = Message::query();
        message.metadata.recursion_desired = self.message.metadata.recursion_desired;
        message.metadata.checking_disabled = self.message.metadata.checking_disabled;
        message.metadata.authentic_data = self.message.metadata.authentic_data;
        message.add_query(self.question.clone());
        message.edns.clone_from(&self.message.edns);
        message
    }

    /// An answer without records.
    pub fn refuse(&self, code: ResponseCode) -> Vec<u8> {
        self.encode(self.reply(code))
    }

    /// The answer to what never leaves: `localhost` (RFC 6761 §6.3), the page's name, discovery of other resolvers.
    pub fn local_answer(&self, v6: bool) -> Option<Vec<u8>> {
        let name = self.question.name();
        let within = |zone: &str| Name::from_ascii(zone).is_ok_and(|zone| zone.zone_of(name));
        if name.is_localhost() {
            return Some(self.addresses(Ipv4Addr::LOCALHOST, Some(Ipv6Addr::LOCALHOST)));
        }
        if Name::from_ascii(PAGE).is_ok_and(|page| page.eq_ignore_root(name)) {
            return Some(self.addresses(PAGE_V4, v6.then_some(PAGE_V6)));
        }
        (within(CANARY) || within(DISCOVERY)).then(|| self.refuse(ResponseCode::NXDomain))
    }

    fn addresses(&self, v4: Ipv4Addr, v6: Option<Ipv6Addr>) -> Vec<u8> {
        let mut reply = self.reply(ResponseCode::NoError);
        let data = match self.question.query_type() {
            RecordType::A => Some(RData::A(A(v4))),
            RecordType::AAAA => v6.map(|v6| RData::AAAA(AAAA(v6))),
            _ => None,
        };
        reply.answers.extend(data.map(|data| Record::from_rdata(self.question.name().clone(), LOCAL_TTL, data)));
        self.encode(reply)
    }

    /// The answer cut to what the child takes over UDP; TC then makes it ask again over TCP (RFC 2181 §9).
    pub fn fit(&self, answer: Vec<u8>) -> Vec<u8> {
        let limit = self.message.edns.as_ref().map_or(PLAIN_UDP, |edns| usize::from(edns.max_payload()).max(PLAIN_UDP));
        if answer.len() <= limit {
            return answer;
        }
        let cut = Message::from_vec(&answer).ok().and_then(|message| message.truncate().to_vec().ok());
        cut.filter(|cut| cut.len() <= limit).unwrap_or_else(|| self.refuse(ResponseCode::ServFail))
    }

    fn reply(&self, code: ResponseCode) -> Message {
        let mut reply = Message::error_msg(self.id(), OpCode::Query, code);
        reply.metadata.recursion_desired = self.message.metadata.recursion_desired;
        reply.metadata.recursion_available = true;
        reply.add_query(self.question.clone());
        if self.message.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(EDNS_UDP);
            reply.set_edns(edns);
        }
        reply
    }

    /// A reply holds a name that was decoded and at most one record, so it can be encoded; should that fail, the bare header does.
    fn encode(&self, reply: Message) -> Vec<u8> {
        let bare = || Message::error_msg(self.id(), OpCode::Query, ResponseCode::ServFail).to_vec().unwrap_or_default();
        reply.to_vec().unwrap_or_else(|_| bare())
    }
}

/// Whether `bytes` answer `outgoing`, and whether they were cut. `Err`: somebody answered it with what is no DNS message.
pub fn answers(bytes: &[u8], outgoing: &Message) -> Result<Option<Answer>, Unusable> {
    if !bytes.starts_with(&outgoing.metadata.id.to_be_bytes()) || bytes.len() < HEADER {
        return Ok(None);
    }
    let answer = Message::from_vec(bytes).map_err(|_| Unusable)?;
    let ours = answer.metadata.message_type == MessageType::Response && answer.queries == outgoing.queries;
    Ok(ours.then_some(Answer { truncated: answer.metadata.truncation, code: answer.metadata.response_code }))
}

/// What matters of an answer before it is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub truncated: bool,
    pub code: ResponseCode,
}

/// A resolver's message that is no DNS message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unusable DNS message")]
pub struct Unusable;

/// An answer as the child gets it.
#[derive(Debug, PartialEq, Eq)]
pub struct Rewritten {
    pub bytes: Vec<u8>,
    /// The addresses that the answer gives for the name asked for.
    pub addresses: Vec<IpAddr>,
    pub code: ResponseCode,
}

/// A resolver's answer with the child's `id`, without ECH and HTTP/3 (which would hide the name or go around TCP), and without IPv6
/// addresses unless `v6`. Answers that have none of this keep their bytes.
pub fn rewrite_answer(answer: &[u8], id: u16, v6: bool) -> Result<Rewritten, Unusable> {
    let mut message = Message::from_vec(answer).map_err(|_| Unusable)?;
    let before = message.clone();
    if !v6 {
        drop_ipv6(&mut message);
    }
    for section in [&mut message.answers, &mut message.authorities, &mut message.additionals] {
        section.retain_mut(|record| match &mut record.data {
            RData::HTTPS(HTTPS(service)) | RData::SVCB(service) => plain_service(service, v6),
            _ => true,
        });
    }
    let addresses = addresses(&message);
    let mut bytes = answer.to_vec();
    if message != before {
        // What was signed is not what is said now.
        message.metadata.authentic_data = false;
        bytes = message.to_vec().map_err(|_| Unusable)?;
    }
    bytes.get_mut(..2).ok_or(Unusable)?.copy_from_slice(&id.to_be_bytes());
    Ok(Rewritten { bytes, addresses, code: message.metadata.response_code })
}

/// To a host without an IPv6 route its addresses are a way to nowhere. A question for AAAA gets "no such record" (RFC 2308 §2.2).
fn drop_ipv6(message: &mut Message) {
    if message.queries.iter().any(|question| question.query_type() == RecordType::AAAA) {
        message.answers.clear();
    }
    for section in [&mut message.answers, &mut message.additionals] {
        section.retain(|record| record.record_type() != RecordType::AAAA);
    }
}

/// Takes ECH, HTTP/3 and, without `v6`, IPv6 hints out of a service binding (RFC 9460 §7). False: nothing usable is left of it.
fn plain_service(service: &mut SVCB, v6: bool) -> bool {
    let had_alpn = service.svc_params.iter().any(|(key, _)| *key == SvcParamKey::Alpn);
    for (_, value) in &mut service.svc_params {
        if let SvcParamValue::Alpn(Alpn(protocols)) = value {
            protocols.retain(|protocol| !is_quic(protocol));
        }
    }
    let unwanted = |key: SvcParamKey| key == SvcParamKey::EchConfigList || (!v6 && key == SvcParamKey::Ipv6Hint);
    service
        .svc_params
        .retain(|(key, value)| !unwanted(*key) && !matches!(value, SvcParamValue::Alpn(Alpn(protocols)) if protocols.is_empty()));
    let kept: Vec<SvcParamKey> = service.svc_params.iter().map(|(key, _)| *key).collect();
    for (_, value) in &mut service.svc_params {
        if let SvcParamValue::Mandatory(Mandatory(keys)) = value {
            keys.retain(|key| kept.contains(key));
        }
    }
    service.svc_params.retain(|(_, value)| !matches!(value, SvcParamValue::Mandatory(Mandatory(keys)) if keys.is_empty()));
    // `no-default-alpn` and no other ALPN left: the service speaks nothing but what was taken out (RFC 9460 §7.1.1).
    !(had_alpn && kept.contains(&SvcParamKey::NoDefaultAlpn) && !kept.contains(&SvcParamKey::Alpn))
}

/// `h3`, its drafts `h3-29`, and Google's older `h3-Q050` and `quic`.
fn is_quic(alpn: &str) -> bool {
    alpn == "h3" || alpn.starts_with("h3-") || alpn.starts_with("quic") || alpn == "doq"
}

/// The addresses that the answer section gives for the question's name, through its aliases (RFC 1034 §3.6.2), hints included.
fn addresses(message: &Message) -> Vec<IpAddr> {
    let Some(question) = message.queries.first() else { return Vec::new() };
    let mut name = question.name();
    // Each alias is followed once at most, so a loop ends.
    for _ in 0..message.answers.len() {
        let alias = message.answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == *name => Some(&target.0),
            _ => None,
        });
        match alias {
            Some(target) => name = target,
            None => break,
        }
    }
    let of_name = message.answers.iter().filter(|record| record.name == *name);
    of_name.flat_map(|record| addresses_of(&record.data)).collect()
}

fn addresses_of(data: &RData) -> Vec<IpAddr> {
    let hints = |value: &SvcParamValue| -> Vec<IpAddr> {
        match value {
            SvcParamValue::Ipv4Hint(hint) => hint.0.iter().map(|a| a.0.into()).collect(),
            SvcParamValue::Ipv6Hint(hint) => hint.0.iter().map(|a| a.0.into()).collect(),
            _ => Vec::new(),
        }
    };
    match data {
        RData::A(a) => vec![a.0.into()],
        RData::AAAA(aaaa) => vec![aaaa.0.into()],
        RData::HTTPS(HTTPS(service)) => service.svc_params.iter().flat_map(|(_, value)| hints(value)).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::rdata::{
        CNAME,
        svcb::{EchConfigList, IpHint},
    };
    use proptest::prelude::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn question(text: &str, record_type: RecordType) -> Message {
        let mut message = Message::query();
        message.metadata.id = 0x1234;
        message.metadata.recursion_desired = true;
        message.add_query(Question::query(name(text), record_type));
        message
    }

    fn answered(text: &str, record_type: RecordType, answers: Vec<Record>) -> Message {
        let mut message = question(text, record_type);
        message.metadata.message_type = MessageType::Response;
        message.metadata.authentic_data = true;
        message.answers = answers;
        message
    }

    fn record(owner: &str, data: RData) -> Record {
        Record::from_rdata(name(owner), 60, data)
    }

    fn a(owner: &str, last: u8) -> Record {
        record(owner, RData::A(A::new(203, 0, 113, last)))
    }

    fn aaaa(owner: &str) -> Record {
        record(owner, RData::AAAA(AAAA("2001:db8::1".parse().unwrap())))
    }

    fn cname(owner: &str, target: &str) -> Record {
        record(owner, RData::CNAME(CNAME(name(target))))
    }

    fn service(params: Vec<(SvcParamKey, SvcParamValue)>) -> Record {
        record("api.acme.test.", RData::HTTPS(HTTPS(SVCB::new(1, Name::root(), params))))
    }

    fn alpn(protocols: &[&str]) -> (SvcParamKey, SvcParamValue) {
        (SvcParamKey::Alpn, SvcParamValue::Alpn(Alpn(protocols.iter().map(|text| (*text).to_owned()).collect())))
    }

    fn mandatory(keys: &[SvcParamKey]) -> (SvcParamKey, SvcParamValue) {
        (SvcParamKey::Mandatory, SvcParamValue::Mandatory(Mandatory(keys.to_vec())))
    }

    fn rewritten(message: &Message, v6: bool) -> (Message, Vec<IpAddr>) {
        let rewritten = rewrite_answer(&message.to_vec().unwrap(), 0x4321, v6).unwrap();
        (Message::from_vec(&rewritten.bytes).unwrap(), rewritten.addresses)
    }

    fn code_of(refusal: Result<Query, Option<Vec<u8>>>) -> Option<ResponseCode> {
        let bytes = refusal.err().unwrap()?;
        Some(Message::from_vec(&bytes).unwrap().metadata.response_code)
    }

    #[test]
    fn only_well_formed_queries_are_taken() {
        let good = question("API.acme.test.", RecordType::A);
        let query = Query::parse(&good.to_vec().unwrap()).unwrap_or_else(|_| panic!());
        assert_eq!((query.id(), query.host(), query.connectable()), (0x1234, "api.acme.test".parse().ok(), query.host()));
        let service = question("_8443._https.api.acme.test.", RecordType::HTTPS).to_vec().unwrap();
        let service = Query::parse(&service).unwrap_or_else(|_| panic!());
        assert_eq!((service.host().is_some(), service.connectable()), (true, None));
        let code = |change: fn(&mut Message)| {
            let mut message = good.clone();
            change(&mut message);
            code_of(Query::parse(&message.to_vec().unwrap()))
        };
        assert_eq!(code(|m| m.metadata.message_type = MessageType::Response), None);
        assert_eq!(code(|m| m.metadata.op_code = OpCode::Notify), Some(ResponseCode::NotImp));
        assert_eq!(code(|m| m.queries.clear()), Some(ResponseCode::FormErr));
        assert_eq!(code(|m| m.queries.push(m.queries[0].clone())), Some(ResponseCode::FormErr));
        assert_eq!(code(|m| m.queries[0].query_type = RecordType::AXFR), Some(ResponseCode::Refused));
        assert_eq!(code(|m| m.queries[0].query_class = DNSClass::CH), Some(ResponseCode::Refused));
        let bytes = good.to_vec().unwrap();
        assert_eq!(code_of(Query::parse(&bytes[..HEADER - 1])), None);
        assert_eq!(code_of(Query::parse(&bytes[..bytes.len() - 1])), Some(ResponseCode::FormErr));
    }

    #[test]
    fn nothing_but_the_question_goes_out() {
        let mut message = question("api.acme.test.", RecordType::A);
        message.answers.push(a("smuggled.acme.test.", 1));
        message.additionals.push(a("smuggled.acme.test.", 2));
        message.metadata.checking_disabled = true;
        message.set_edns(Edns::new()).edns.as_mut().unwrap().set_dnssec_ok(true);
        let query = Query::parse(&message.to_vec().unwrap()).unwrap_or_else(|_| panic!());
        let ids: std::collections::HashSet<u16> = (0..20).map(|_| query.outgoing().metadata.id).collect();
        assert!(ids.len() > 10);
        let outgoing = query.outgoing();
        assert_eq!((outgoing.queries.clone(), outgoing.answers.len(), outgoing.additionals.len()), (message.queries, 0, 0));
        assert!(outgoing.metadata.checking_disabled && outgoing.metadata.recursion_desired && outgoing.edns.unwrap().flags().dnssec_ok);
    }

    #[test]
    fn what_needs_no_change_keeps_its_bytes() {
        let message = answered("api.acme.test.", RecordType::A, vec![cname("api.acme.test.", "lb.acme.test."), a("lb.acme.test.", 7)]);
        let mut bytes = message.to_vec().unwrap();
        bytes.extend([1, 2, 3]);
        let rewritten = rewrite_answer(&bytes, 0x4321, false).unwrap();
        assert_eq!((&rewritten.bytes[..2], &rewritten.bytes[2..]), (&[0x43, 0x21][..], &bytes[2..]));
        assert_eq!(rewritten.addresses, ["203.0.113.7".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn addresses_are_those_of_the_name_asked_for() {
        let others = vec![a("evil.test.", 1), cname("evil.test.", "api.acme.test."), a("API.acme.test.", 2)];
        assert_eq!(rewritten(&answered("api.acme.test.", RecordType::A, others), true).1, ["203.0.113.2".parse::<IpAddr>().unwrap()]);
        let circle = vec![cname("api.acme.test.", "b.test."), cname("b.test.", "api.acme.test."), a("c.test.", 1)];
        assert_eq!(rewritten(&answered("api.acme.test.", RecordType::A, circle), true).1, [] as [IpAddr; 0]);
    }

    #[test]
    fn aaaa_is_emptied_without_a_v6_route() {
        let mut message =
            answered("api.acme.test.", RecordType::AAAA, vec![cname("api.acme.test.", "lb.acme.test."), aaaa("lb.acme.test.")]);
        message.authorities.push(cname("acme.test.", "soa.test."));
        assert_eq!(rewritten(&message, true).0.answers.len(), 2);
        let (without, addresses) = rewritten(&message, false);
        assert_eq!((without.metadata.response_code, without.answers.len(), without.authorities.len()), (ResponseCode::NoError, 0, 1));
        assert!(addresses.is_empty() && !without.metadata.authentic_data);
        let any = answered("api.acme.test.", RecordType::ANY, vec![a("api.acme.test.", 1), aaaa("api.acme.test.")]);
        assert_eq!(rewritten(&any, false).0.answers, [a("api.acme.test.", 1)]);
    }

    #[test]
    fn services_lose_ech_and_http3() {
        let ech = || (SvcParamKey::EchConfigList, SvcParamValue::EchConfigList(EchConfigList(vec![0, 1, 2])));
        let v4 = || (SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(IpHint(vec![A::new(203, 0, 113, 9)])));
        let v6 = || (SvcParamKey::Ipv6Hint, SvcParamValue::Ipv6Hint(IpHint(vec![AAAA("2001:db8::9".parse().unwrap())])));
        let no_default = || (SvcParamKey::NoDefaultAlpn, SvcParamValue::NoDefaultAlpn);
        let port = || (SvcParamKey::Port, SvcParamValue::Port(8443));
        for (before, after) in [
            (vec![alpn(&["h3", "h2", "h3-29"]), v4(), ech(), v6()], Some(vec![alpn(&["h2"]), v4()])),
            (vec![alpn(&["h3"]), port()], Some(vec![port()])),
            (
                vec![mandatory(&[SvcParamKey::Alpn, SvcParamKey::EchConfigList]), alpn(&["h2"]), ech()],
                Some(vec![mandatory(&[SvcParamKey::Alpn]), alpn(&["h2"])]),
            ),
            (vec![mandatory(&[SvcParamKey::EchConfigList]), ech()], Some(vec![])),
            (vec![alpn(&["h3"]), no_default()], None),
            (vec![alpn(&["h2", "h3"]), no_default()], Some(vec![alpn(&["h2"]), no_default()])),
        ] {
            let message = answered("api.acme.test.", RecordType::HTTPS, vec![service(before)]);
            let (got, _) = rewritten(&message, false);
            assert_eq!(got.answers, after.map(service).into_iter().collect::<Vec<_>>());
        }
        let hints = answered("api.acme.test.", RecordType::HTTPS, vec![service(vec![v4(), v6()])]);
        assert_eq!(rewritten(&hints, true).1.len(), 2);
        // However the key is spelt on the wire, an answer never leaves with it.
        let bytes = answered("api.acme.test.", RecordType::HTTPS, vec![service(vec![ech()])]).to_vec().unwrap();
        assert!(bytes.windows(4).any(|part| part == [0, 5, 0, 3]));
        assert!(!rewrite_answer(&bytes, 1, true).unwrap().bytes.windows(4).any(|part| part == [0, 5, 0, 3]));
    }

    #[test]
    fn some_names_never_leave() {
        let local = |text: &str, record_type| {
            let query = Query::parse(&question(text, record_type).to_vec().unwrap()).unwrap_or_else(|_| panic!());
            query.local_answer(true).map(|bytes| Message::from_vec(&bytes).unwrap())
        };
        let reply = local("x.LOCALHOST.", RecordType::A).unwrap();
        assert_eq!((reply.metadata.id, &reply.answers[0].data), (0x1234, &RData::A(A::new(127, 0, 0, 1))));
        assert_eq!(local("localhost.", RecordType::AAAA).unwrap().answers[0].data, RData::AAAA(AAAA(Ipv6Addr::LOCALHOST)));
        let reply = local("localhost.", RecordType::MX).unwrap();
        assert_eq!((reply.metadata.response_code, reply.answers.len()), (ResponseCode::NoError, 0));
        assert_eq!(local("Mitm.it.", RecordType::A).unwrap().answers[0].data, RData::A(A(PAGE_V4)));
        assert_eq!(local("mitm.it.", RecordType::AAAA).unwrap().answers[0].data, RData::AAAA(AAAA(PAGE_V6)));
        assert_eq!(local("www.mitm.it.", RecordType::A), None);
        for text in ["use-application-dns.net.", "_dns.resolver.arpa."] {
            assert_eq!(local(text, RecordType::A).unwrap().metadata.response_code, ResponseCode::NXDomain, "{text}");
        }
        assert_eq!(local("localhost.acme.test.", RecordType::A), None);
    }

    #[test]
    fn answers_fit_what_the_child_takes() {
        let many = answered("api.acme.test.", RecordType::A, (0..60).map(|last| a("api.acme.test.", last)).collect()).to_vec().unwrap();
        let fit = |payload: Option<u16>| {
            let mut message = question("api.acme.test.", RecordType::A);
            message.edns = payload.map(|payload| Edns::new().set_max_payload(payload).clone());
            let query = Query::parse(&message.to_vec().unwrap()).unwrap_or_else(|_| panic!());
            let bytes = query.fit(many.clone());
            (bytes.len() <= 512, Message::from_vec(&bytes).unwrap())
        };
        for payload in [None, Some(0), Some(600)] {
            let (short, cut) = fit(payload);
            assert!(short && cut.metadata.truncation && cut.answers.is_empty() && cut.queries.len() == 1, "{payload:?}");
        }
        let (_, whole) = fit(Some(4096));
        assert!(!whole.metadata.truncation && whole.answers.len() == 60);
    }

    #[test]
    fn only_the_answer_to_our_question_counts() {
        let outgoing = question("api.acme.test.", RecordType::A);
        let answer = answered("Api.acme.test.", RecordType::A, vec![a("api.acme.test.", 1)]);
        let got = |change: fn(&mut Message)| {
            let mut message = answer.clone();
            change(&mut message);
            answers(&message.to_vec().unwrap(), &outgoing).unwrap()
        };
        assert_eq!(got(|_| {}), Some(Answer { truncated: false, code: ResponseCode::NoError }));
        assert_eq!(got(|m| m.metadata.truncation = true).map(|answer| answer.truncated), Some(true));
        assert_eq!(got(|m| m.metadata.id ^= 1), None);
        assert_eq!(got(|m| m.metadata.message_type = MessageType::Query), None);
        assert_eq!(got(|m| m.queries[0].name = name("evil.test.")), None);
        assert_eq!(got(|m| m.queries[0].query_type = RecordType::AAAA), None);
        assert_eq!(got(|m| m.queries.clear()), None);
        assert_eq!(answers(&[0x12, 0x34, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0], &outgoing), Err(Unusable));
    }

    /// Bytes that get further than random ones: a real message with some of its bytes changed.
    fn mangled() -> impl Strategy<Value = Vec<u8>> {
        let params = vec![alpn(&["h3", "h2"]), (SvcParamKey::EchConfigList, SvcParamValue::EchConfigList(EchConfigList(vec![0; 8])))];
        let mut message = answered(
            "api.acme.test.",
            RecordType::HTTPS,
            vec![cname("api.acme.test.", "b.test."), service(params), a("b.test.", 1), aaaa("b.test.")],
        );
        message.set_edns(Edns::new());
        let response = message.to_vec().unwrap();
        message.metadata.message_type = MessageType::Query;
        let query = message.to_vec().unwrap();
        (any::<bool>(), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)).prop_map(move |(first, changes)| {
            let mut bytes = if first { response.clone() } else { query.clone() };
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        })
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..300), mangled()], v6: bool) {
            if let Ok(query) = Query::parse(&bytes) {
                let outgoing = query.outgoing();
                let sent = Message::from_vec(&outgoing.to_vec().unwrap()).unwrap();
                prop_assert_eq!(sent.queries.len(), 1);
                prop_assert_eq!(sent.answers.len() + sent.authorities.len() + sent.additionals.len(), 0);
                prop_assert_eq!(sent.metadata.message_type, MessageType::Query);
                let _ = (query.local_answer(true), query.host(), query.refuse(ResponseCode::ServFail), query.fit(bytes.clone()));
            }
            if let Ok(rewritten) = rewrite_answer(&bytes, 7, v6) {
                let message = Message::from_vec(&rewritten.bytes).unwrap();
                for record in message.all_sections() {
                    if let RData::HTTPS(HTTPS(service)) = &record.data {
                        prop_assert!(service.svc_params.iter().all(|(key, _)| *key != SvcParamKey::EchConfigList));
                    }
                    prop_assert!(v6 || record.record_type() != RecordType::AAAA || message.authorities.contains(record));
                }
            }
        }
    }
}
