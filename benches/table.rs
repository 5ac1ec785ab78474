//! Time of one decision by host over tables of 10 to 10,000 routes: `ROUTES EXACT_NS PATTERN_NS`, a line each.

#![allow(clippy::expect_used, clippy::print_stdout)]

use std::{hint::black_box, time::Instant};

use authsome::{
    host::Target,
    route::{Decision, Route, Table},
};

const DECISIONS: u32 = 20_000;
/// Of each table, the fastest is taken: what else the machine does can only add.
const ROUNDS: u32 = 5;

fn main() {
    for count in [10, 100, 1_000, 10_000] {
        let table = Table::new((0..count).map(route).collect(), Vec::new(), Vec::new());
        let (exact, pattern) = ((count / 2) & !1, (count / 2) | 1);
        println!("{count} {:.1} {:.1}", time(&table, &host(exact)), time(&table, &format!("eu.{}", host(pattern))));
    }
}

fn host(number: usize) -> String {
    format!("api{number}.acme.test")
}

/// Every other one a pattern.
fn route(number: usize) -> Route {
    let url = if number.is_multiple_of(2) { host(number) } else { format!(r"regex:(.+\.)?{}", host(number).replace('.', r"\.")) };
    Route { provider: format!("acme{number}").parse().expect("a name"), url: url.parse().expect("a URL or pattern") }
}

fn time(table: &Table, host: &str) -> f64 {
    let target = Target { host: host.parse().expect("a host"), port: 443 };
    assert!(matches!(table.decide(&target), Decision::Inject(_)), "{host} is routed");
    let rounds = (0..ROUNDS).map(|_| {
        let begun = Instant::now();
        for _ in 0..DECISIONS {
            black_box(table.decide(black_box(&target)));
        }
        begun.elapsed().as_secs_f64() * 1e9 / f64::from(DECISIONS)
    });
    rounds.fold(f64::INFINITY, f64::min)
}
