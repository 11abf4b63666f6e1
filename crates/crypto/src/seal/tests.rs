use proptest::prelude::*;

use super::*;
use crate::master_key;

const CELL: Cell<'static> = Cell { table: "secrets", row: "sec_1", column: "value" };

fn key(byte: u8) -> MasterKey {
    master_key::generate(&mut |buffer: &mut [u8]| buffer.fill(byte))
}

fn seal(ring: &KeyRing, plaintext: &[u8]) -> Vec<u8> {
    ring.seal(CELL, plaintext, &mut |buffer: &mut [u8]| buffer.fill(5)).unwrap()
}

#[test]
fn a_sealed_value_hides_its_plaintext() {
    let sealed = seal(&KeyRing::new(&key(1)), b"hunter2 hunter2");
    assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
    assert_eq!(sealed.len(), 15 + OVERHEAD_BYTES);
}

#[test]
fn opening_for_a_different_cell_fails() {
    let ring = KeyRing::new(&key(1));
    let sealed = seal(&ring, b"hunter2");
    let others = [
        Cell { table: "servers", ..CELL },
        Cell { row: "sec_2", ..CELL },
        Cell { column: "old_value", ..CELL },
        // The table, row and column concatenate to the same string as those of `CELL`.
        Cell { table: "secretss", row: "ec_1", ..CELL },
        Cell { row: "sec_1v", column: "alue", ..CELL },
    ];
    for other in others {
        assert_eq!(ring.open(other, &sealed).unwrap_err(), SealError::AuthenticationFailed, "{other:?}");
    }
    assert_eq!(ring.open(CELL, &sealed).unwrap().as_slice(), b"hunter2");
}

#[test]
fn opening_with_a_different_key_fails_and_names_the_key() {
    let sealed = seal(&KeyRing::new(&key(1)), b"hunter2");
    let error = KeyRing::new(&key(2)).open(CELL, &sealed).unwrap_err();
    assert_eq!(error, SealError::UnknownKey { id: SealKeyId::of(&key(1)) });
}

#[test]
fn a_value_relabelled_with_another_key_is_rejected() {
    let sealed = seal(&KeyRing::new(&key(1)), b"hunter2");
    let ring = KeyRing::new(&key(2)).with_retired(&key(1));
    let mut relabelled = sealed;
    relabelled[1..=KEY_ID_BYTES].copy_from_slice(&SealKeyId::of(&key(2)).0);
    assert_eq!(ring.open(CELL, &relabelled).unwrap_err(), SealError::AuthenticationFailed);
}

#[test]
fn any_flipped_bit_is_detected() {
    let ring = KeyRing::new(&key(1));
    let sealed = seal(&ring, b"hunter2");
    for at in 0..sealed.len() {
        for bit in 0..8 {
            let mut changed = sealed.clone();
            changed[at] ^= 1 << bit;
            assert!(ring.open(CELL, &changed).is_err(), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn a_truncated_value_is_rejected() {
    let ring = KeyRing::new(&key(1));
    let sealed = seal(&ring, b"hunter2");
    for length in 0..sealed.len() {
        assert!(ring.open(CELL, &sealed[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn after_a_rotation_old_values_open_and_new_ones_use_the_new_key() {
    let old = seal(&KeyRing::new(&key(1)), b"hunter2");
    let ring = KeyRing::new(&key(2)).with_retired(&key(1));
    assert_eq!(ring.open(CELL, &old).unwrap().as_slice(), b"hunter2");
    assert!(ring.is_outdated(&old));

    let new = seal(&ring, b"hunter2");
    assert!(!ring.is_outdated(&new));
    assert_eq!(KeyRing::new(&key(2)).open(CELL, &new).unwrap().as_slice(), b"hunter2");
}

#[test]
fn an_unknown_format_version_has_its_own_error() {
    let ring = KeyRing::new(&key(1));
    let mut sealed = seal(&ring, b"hunter2");
    sealed[0] = 2;
    assert_eq!(ring.open(CELL, &sealed).unwrap_err(), SealError::UnknownVersion { found: 2 });
}

#[test]
fn an_oversized_plaintext_is_rejected() {
    let ring = KeyRing::new(&key(1));
    let long = vec![0u8; MAX_PLAINTEXT_BYTES + 1];
    let error = ring.seal(CELL, &long, &mut |_: &mut [u8]| {}).unwrap_err();
    assert_eq!(error, SealError::TooLong { found: long.len() });
    assert!(ring.seal(CELL, &long[1..], &mut |_: &mut [u8]| {}).is_ok());
}

#[test]
fn debug_output_contains_only_key_ids() {
    let debug = format!("{:?}", KeyRing::new(&key(1)).with_retired(&key(2)));
    let expected = format!(
        "KeyRing {{ active: \"{}\", retired: [\"{}\"], .. }}",
        SealKeyId::of(&key(1)),
        SealKeyId::of(&key(2))
    );
    assert_eq!(debug, expected);
}

proptest! {
    #[test]
    fn a_sealed_value_opens(plaintext: Vec<u8>, row: String, nonce: [u8; NONCE_LEN]) {
        let ring = KeyRing::new(&key(1));
        let cell = Cell { row: &row, ..CELL };
        let sealed = ring.seal(cell, &plaintext, &mut |buffer: &mut [u8]| buffer.copy_from_slice(&nonce)).unwrap();
        let opened = ring.open(cell, &sealed).unwrap();
        prop_assert_eq!(opened.as_slice(), plaintext.as_slice());
    }

    #[test]
    fn opening_any_bytes_does_not_panic(bytes: Vec<u8>) {
        let _ = KeyRing::new(&key(1)).open(CELL, &bytes);
    }
}
