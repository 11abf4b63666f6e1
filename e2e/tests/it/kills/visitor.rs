//! Deployments and threads that come and go: a visitor makes an agent, talks to it, and deletes it again, often while it
//! works.

use herm_testkit::events::Event;

use super::customer::Customer;
use super::place::Place;
use crate::history::dice::Dice;

/// Of a hundred visitors: those that delete their agent in the middle of its work.
const HASTY: u64 = 60;
/// Events that a hasty one reads at most before.
const MAX_READ: u64 = 60;

/// Visitors, one after the other until all is over; the deployments that they had.
pub(super) async fn visits(place: &Place) -> Vec<String> {
    let mut visited = Vec::new();
    while !place.is_over() {
        visited.push(visit(place, visited.len()).await);
    }
    visited
}

async fn visit(place: &Place, number: usize) -> String {
    let name = format!("visitor{number}");
    let mut dice = Dice::of(place.seed, &name);
    let customer = Customer::new(place, name, "anthropic/claude-sonnet-4.5", true).await;
    let works = async {
        let talk = async { tokio::join!(customer.thread("stays"), short_lived(place, &customer)) };
        if dice.percent(HASTY) {
            let enough = usize::try_from(dice.between(1, MAX_READ)).unwrap_or(1);
            tokio::select! {
                _ = talk => {}
                () = customer.follower.has_read(enough) => {}
            }
        } else {
            talk.await;
        }
        place.delete(&customer.path).await;
        customer.follower.is_done();
    };
    let ((), seen) = tokio::join!(works, customer.follower.follow());
    check(&seen);
    customer.deployment_id
}

/// A thread that is deleted while its run is at work.
async fn short_lived(place: &Place, customer: &Customer<'_>) {
    if let Some(sent) = customer.send("new", &format!("{}.goes", customer.deployment_id)).await {
        place.delete(&format!("{}/threads/{}", customer.path, sent.thread_id)).await;
    }
}

/// What was read is in order, each event once: ids of what was erased are skipped.
fn check(seen: &[Event]) {
    let numbers: Vec<u64> = seen.iter().map(Event::number).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "events of a visitor: {seen:#?}");
}
