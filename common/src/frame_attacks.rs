//! Attacks on the decoder of frames: what no peer of ours would send, a million times.

use prost::Message as _;

use super::*;
use crate::limits::{MAX_FRAME, MAX_FRAME_BEFORE_HELLO};
use crate::session::one_of_each;

/// Frames that are tried.
const FRAMES: usize = 1_000_000;
/// What is read at once from a peer.
const PIECE: usize = 512;

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.roll() % limit as u64) as usize
    }
}

/// Proper frames, from which broken ones are made.
fn proper() -> Vec<Vec<u8>> {
    let bodies = one_of_each().into_iter().map(Some).chain([None]);
    bodies.map(|body| Frame { seq: 7, reply_to: 3, may_ignore: true, body }.encode_to_vec()).collect()
}

/// A frame that is broken in one of the usual ways.
fn broken(dice: &mut Dice, proper: &[Vec<u8>]) -> Vec<u8> {
    let mut body = proper[dice.below(proper.len())].clone();
    match dice.below(6) {
        // Bytes of any kind.
        0 => body = (0..dice.below(64)).map(|_| dice.roll() as u8).collect(),
        // One bit.
        1 if !body.is_empty() => {
            let at = dice.below(body.len());
            body[at] ^= 1 << dice.below(8);
        }
        // Cut.
        2 => body.truncate(dice.below(body.len() + 1)),
        // With more behind it.
        3 => body.extend((0..dice.below(32)).map(|_| dice.roll() as u8)),
        // Nested in itself.
        4 => {
            for _ in 0..dice.below(8) {
                let mut outer = vec![0xf2, 0x01];
                prost::encoding::encode_varint(body.len() as u64, &mut outer);
                outer.extend_from_slice(&body);
                body = outer;
            }
        }
        // Twice.
        _ => body.extend_from_within(..),
    }
    let announced = match dice.below(8) {
        0 => dice.roll() as u32,
        1 => body.len() as u32 + 1,
        2 => (body.len() as u32).saturating_sub(1),
        _ => body.len() as u32,
    };
    [&announced.to_be_bytes()[..], &body].concat()
}

#[test]
fn a_million_broken_frames_neither_panic_nor_grow_the_buffer() {
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let proper = proper();
    let (mut whole, mut refused) = (0, 0);
    let mut largest = 0;
    for limit in [MAX_FRAME_BEFORE_HELLO, MAX_FRAME] {
        let mut decoder = Decoder::new(limit);
        let mut buffer = BytesMut::new();
        for _ in 0..FRAMES / 2 {
            for piece in broken(&mut dice, &proper).chunks(PIECE) {
                buffer.extend_from_slice(piece);
            }
            loop {
                match decoder.decode(&mut buffer) {
                    Ok(Some(_)) => whole += 1,
                    Ok(None) => break,
                    // The session is over; the next peer begins anew.
                    Err(_) => {
                        refused += 1;
                        buffer = BytesMut::new();
                        break;
                    }
                }
            }
            largest = largest.max(buffer.capacity());
        }
    }
    assert!(whole > FRAMES / 20 && refused > FRAMES / 20, "{whole} whole, {refused} refused");
    assert!(largest <= 4 * MAX_FRAME, "{largest}");
}

#[test]
fn deep_nesting_and_empty_items_cost_no_time_and_no_memory() {
    let began = std::time::Instant::now();
    let mut deep = vec![0xf2, 0x01, 0x00];
    // Each level wraps the one before; prost stops at a hundred.
    while deep.len() < 64 * 1024 {
        let mut outer = vec![0x0a];
        prost::encoding::encode_varint(deep.len() as u64, &mut outer);
        outer.extend_from_slice(&deep);
        deep = outer;
        if deep.len() > 60_000 {
            break;
        }
        deep.extend_from_slice(&[0x0a, 0x00].repeat(64));
    }
    let empty_items = |tag: &[u8], count: usize| {
        let items = [0x0a_u8, 0x00].repeat(count);
        let mut frame = tag.to_vec();
        prost::encoding::encode_varint(items.len() as u64, &mut frame);
        frame.extend_from_slice(&items);
        frame
    };
    let frames = [
        (deep, false),
        // Inventory (30) and Reconcile (31), half a million empty items.
        (empty_items(&[0xf2, 0x01], 500_000), true),
        (empty_items(&[0xfa, 0x01], 500_000), true),
        // Unknown fields: passed over one by one.
        ([0xf8_u8, 0x3f, 0x00].repeat(300_000), false),
    ];
    for (body, too_many) in frames {
        let mut buffer = BytesMut::new();
        buffer.put_u32(body.len() as u32);
        buffer.extend_from_slice(&body);
        let decoded = Decoder::new(MAX_FRAME).decode(&mut buffer);
        assert_eq!(matches!(decoded, Err(FrameError::TooMany { .. })), too_many, "{decoded:?}");
    }
    // Four frames at 50 ms each, ten times over, and this is a debug build on a busy machine.
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
}
