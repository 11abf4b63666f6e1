use std::fs::{self, File};
use std::sync::Arc;

use herm_sandbox::workspace::{Error, Quotas};
use herm_types::Timestamp;
use herm_types::time::ManualClock;

use super::{Ground, ground};

const MIB: u64 = 1024 * 1024;

fn quotas() -> (Quotas, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(Timestamp::from_micros(1_800_000_000_000_000)));
    (Quotas::new(Arc::clone(&clock) as _), clock)
}

fn put(ground: &Ground, name: &str, mib: u64) {
    let path = ground.inside.join(name);
    fs::write(&path, vec![1; usize::try_from(mib * MIB).unwrap()]).unwrap();
    File::open(path).unwrap().sync_all().unwrap();
}

#[test]
fn writers_share_the_room_that_there_is_and_give_back_what_they_do_not_use() {
    let ground = ground();
    let (quotas, _) = quotas();
    put(&ground, "there", 2);
    let mut first = quotas.enter(&ground.inside, 10 * MIB, 0);
    first.take(MIB).unwrap();
    first.take(5 * MIB).unwrap();
    let mut second = quotas.enter(&ground.inside, 10 * MIB, 0);
    let Err(Error::OverQuota { limit, used }) = second.take(4 * MIB) else { panic!("there is no room") };
    assert!(limit == 10 * MIB && (7 * MIB..8 * MIB).contains(&used), "{used}");
    second.take(2 * MIB).unwrap();
    drop(first);
    second.take(7 * MIB).unwrap();
    drop(second);
    quotas.enter(&ground.inside, 10 * MIB, 0).take(7 * MIB).unwrap();
}

#[test]
fn what_is_in_its_place_counts_and_what_it_replaced_does_not() {
    let ground = ground();
    let (quotas, _) = quotas();
    put(&ground, "file", 6);
    // Only by what it replaces is there room.
    quotas.enter(&ground.inside, 10 * MIB, 0).take(7 * MIB).unwrap_err();
    let mut room = quotas.enter(&ground.inside, 10 * MIB, 6 * MIB);
    room.take(7 * MIB).unwrap();
    put(&ground, "file", 7);
    room.fill();
    quotas.enter(&ground.inside, 10 * MIB, 0).take(4 * MIB).unwrap_err();
    quotas.enter(&ground.inside, 10 * MIB, 0).take(2 * MIB).unwrap();
}

#[test]
fn nobody_is_refused_by_an_old_measurement_and_a_new_one_comes_in_time() {
    let ground = ground();
    let (quotas, clock) = quotas();
    put(&ground, "large", 8);
    quotas.enter(&ground.inside, 10 * MIB, 0).take(MIB).unwrap();
    fs::remove_file(ground.inside.join("large")).unwrap();
    quotas.enter(&ground.inside, 10 * MIB, 0).take(9 * MIB).unwrap();
    // What an agent adds is seen after a while.
    put(&ground, "large", 8);
    quotas.enter(&ground.inside, 10 * MIB, 0).take(9 * MIB).unwrap();
    clock.advance_ms(10_001);
    quotas.enter(&ground.inside, 10 * MIB, 0).take(9 * MIB).unwrap_err();
    fs::remove_file(ground.inside.join("large")).unwrap();
    quotas.forget(&ground.inside);
    quotas.enter(&ground.inside, 10 * MIB, 0).take(9 * MIB).unwrap();
}
