use std::fs::{self, File};
use std::sync::Arc;

use herm_sandbox::workspace::{Error, Quotas};
use herm_types::Timestamp;
use herm_types::time::ManualClock;

use super::{Fixture, fixture};

const MIB: u64 = 1024 * 1024;

fn quotas() -> (Quotas, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(Timestamp::from_micros(1_800_000_000_000_000)));
    (Quotas::new(Arc::clone(&clock) as _), clock)
}

fn put(fixture: &Fixture, name: &str, mib: u64) {
    let path = fixture.inside.join(name);
    fs::write(&path, vec![1; usize::try_from(mib * MIB).unwrap()]).unwrap();
    File::open(path).unwrap().sync_all().unwrap();
}

#[test]
fn writers_share_the_quota_and_release_unused_reservations() {
    let fixture = fixture();
    let (quotas, _) = quotas();
    put(&fixture, "existing", 2);
    let mut first = quotas.begin_write(&fixture.inside, 10 * MIB, 0);
    first.grow_to(MIB).unwrap();
    first.grow_to(5 * MIB).unwrap();
    let mut second = quotas.begin_write(&fixture.inside, 10 * MIB, 0);
    let Err(Error::OverQuota { limit, used }) = second.grow_to(4 * MIB) else {
        panic!("the quota must be exceeded")
    };
    assert!(limit == 10 * MIB && (7 * MIB..8 * MIB).contains(&used), "{used}");
    second.grow_to(2 * MIB).unwrap();
    drop(first);
    second.grow_to(7 * MIB).unwrap();
    drop(second);
    quotas.begin_write(&fixture.inside, 10 * MIB, 0).grow_to(7 * MIB).unwrap();
}

#[test]
fn a_written_file_counts_and_the_file_that_it_replaced_does_not() {
    let fixture = fixture();
    let (quotas, _) = quotas();
    put(&fixture, "file", 6);
    // A file of 7 MiB fits into the quota only if the write replaces the file of 6 MiB.
    quotas.begin_write(&fixture.inside, 10 * MIB, 0).grow_to(7 * MIB).unwrap_err();
    let mut reservation = quotas.begin_write(&fixture.inside, 10 * MIB, 6 * MIB);
    reservation.grow_to(7 * MIB).unwrap();
    put(&fixture, "file", 7);
    reservation.commit();
    quotas.begin_write(&fixture.inside, 10 * MIB, 0).grow_to(4 * MIB).unwrap_err();
    quotas.begin_write(&fixture.inside, 10 * MIB, 0).grow_to(2 * MIB).unwrap();
}

#[test]
fn only_a_fresh_measurement_rejects_a_write_and_an_old_one_expires() {
    let fixture = fixture();
    let (quotas, clock) = quotas();
    put(&fixture, "large", 8);
    quotas.begin_write(&fixture.inside, 10 * MIB, 0).grow_to(MIB).unwrap();
    fs::remove_file(fixture.inside.join("large")).unwrap();
    quotas.begin_write(&fixture.inside, 10 * MIB, 0).grow_to(9 * MIB).unwrap();
    // Simulate a write by the agent. The write is noticed only when the workspace is measured again, after the previous
    // measurement has expired.
    put(&fixture, "large", 8);
    quotas.begin_write(&fixture.inside, 10 * MIB, 0).grow_to(9 * MIB).unwrap();
    clock.advance_ms(10_001);
    quotas.begin_write(&fixture.inside, 10 * MIB, 0).grow_to(9 * MIB).unwrap_err();
    fs::remove_file(fixture.inside.join("large")).unwrap();
    quotas.invalidate(&fixture.inside);
    quotas.begin_write(&fixture.inside, 10 * MIB, 0).grow_to(9 * MIB).unwrap();
}
