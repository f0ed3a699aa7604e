//! Counts what repeats in an encoded frame before it is decoded, so that few bytes cannot become much memory.
//!
//! An empty item of a list takes two bytes on the wire and a hundred in memory. The decoder would make half a million of
//! them of one frame before anybody could look at their number (protocol R-FRAME-8). Here only numbers of fields are read;
//! what is malformed is left to the decoder, which refuses it.

use crate::limits::INVENTORY_PAGE;

/// A list inside of a frame: the field numbers that lead to it, and how many items a frame may hold in all.
struct List {
    path: &'static [u64],
    most: usize,
}

/// Far above what a proper peer sends: the exact limits are checked, and explained, where the items are used.
const LISTS: [List; 14] = [
    // ClientHello: capabilities, labels.
    List { path: &[10, 3], most: 1_000 },
    List { path: &[10, 12], most: 1_000 },
    // ServerHello: capabilities, addresses.
    List { path: &[11, 2], most: 1_000 },
    List { path: &[11, 8], most: 1_000 },
    // Command: environment, the secret part of it, words it needs.
    List { path: &[20, 8], most: 20_000 },
    List { path: &[20, 26], most: 1_000 },
    List { path: &[20, 29, 1], most: 20_000 },
    // CommandResult: streams with their gaps and segments, flags.
    List { path: &[26, 17], most: 100 },
    List { path: &[26, 17, 3], most: 8_000 },
    List { path: &[26, 17, 4], most: 8_000 },
    List { path: &[26, 21], most: 1_000 },
    // Inventory and Reconcile: items.
    List { path: &[30, 1], most: 4 * INVENTORY_PAGE },
    List { path: &[31, 1], most: 4 * INVENTORY_PAGE },
    // What an item says of its streams, all items together.
    List { path: &[30, 1, 5], most: 16 * INVENTORY_PAGE },
];

/// Tells whether a list of the frame is longer than any proper one; answers how many it may have.
#[must_use]
pub fn too_many(frame: &[u8]) -> Option<usize> {
    let mut counts = [0; LISTS.len()];
    walk(frame, &mut Vec::with_capacity(3), &mut counts)
}

fn walk(message: &[u8], path: &mut Vec<u64>, counts: &mut [usize; LISTS.len()]) -> Option<usize> {
    let mut rest = message;
    while let Some((number, content)) = field(&mut rest) {
        path.push(number);
        for (list, count) in LISTS.iter().zip(counts.iter_mut()).filter(|(list, _)| list.path == path.as_slice()) {
            *count += 1;
            if *count > list.most {
                return Some(list.most);
            }
        }
        let leads_on = |list: &List| list.path.len() > path.len() && list.path.starts_with(path);
        if let Some(inner) = content.filter(|_| LISTS.iter().any(leads_on))
            && let Some(most) = walk(inner, path, counts)
        {
            return Some(most);
        }
        path.pop();
    }
    None
}

/// Takes one field from the front: its number, and its bytes where it has a length. `None` at the end and where the bytes
/// are no fields.
fn field<'m>(rest: &mut &'m [u8]) -> Option<(u64, Option<&'m [u8]>)> {
    let tag = varint(rest)?;
    let content = match tag & 7 {
        0 => varint(rest).map(|_| None)?,
        1 => take(rest, 8).map(|_| None)?,
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            Some(take(rest, length)?)
        }
        5 => take(rest, 4).map(|_| None)?,
        _ => return None,
    };
    Some((tag >> 3, content))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, behind) = rest.split_first()?;
        *rest = behind;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'m>(rest: &mut &'m [u8], length: usize) -> Option<&'m [u8]> {
    let (taken, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::limits::MAX_FRAME;
    use crate::wire::frame::Body;
    use crate::wire::{CommandResult, Frame, Inventory, InventoryItem, StreamEnd, StreamLength};

    fn inventory(items: usize, streams: usize) -> Vec<u8> {
        let item = InventoryItem { streams: vec![StreamLength::default(); streams], ..InventoryItem::default() };
        let body = Body::Inventory(Inventory { items: vec![item; items], last: true });
        Frame { seq: 1, body: Some(body), ..Frame::default() }.encode_to_vec()
    }

    /// Protocol R-FRAME-8.
    #[test]
    fn a_list_is_refused_beyond_its_limit_and_not_before() {
        let most = 4 * INVENTORY_PAGE;
        assert_eq!(too_many(&inventory(most, 0)), None);
        assert_eq!(too_many(&inventory(most + 1, 0)), Some(most));
        assert_eq!(too_many(&inventory(INVENTORY_PAGE, 16)), None);
        assert_eq!(too_many(&inventory(INVENTORY_PAGE + 1, 16)), Some(16 * INVENTORY_PAGE));
        let streams = |count| {
            let body = CommandResult { streams: vec![StreamEnd::default(); count], ..CommandResult::default() };
            Frame { body: Some(Body::CommandResult(body)), ..Frame::default() }.encode_to_vec()
        };
        assert_eq!((too_many(&streams(100)), too_many(&streams(101))), (None, Some(100)));
    }

    #[test]
    fn a_list_in_several_pieces_is_one_list() {
        let most = 4 * INVENTORY_PAGE;
        let piece = inventory(most / 2 + 1, 0);
        // Two bodies of one kind in one frame: the decoder merges them.
        assert_eq!(too_many(&[piece.clone(), piece].concat()), Some(most));
    }

    #[test]
    fn bytes_that_are_no_fields_are_left_to_the_decoder() {
        for bytes in [&[][..], &[0xff; 12], &[0x0b], &[0xf2, 0x01, 0xff, 0xff], &[0x08]] {
            assert_eq!(too_many(bytes), None);
        }
    }

    /// What the decoder may make of the largest frame of empty items, in memory: at most 32 times its bytes.
    #[test]
    fn the_worst_frame_takes_a_bounded_multiple_of_its_bytes() {
        let mut largest = 0;
        for List { path, most } in &LISTS {
            // A vector that grew has room for twice its items.
            largest = largest.max(2 * most * size_of_items(path));
        }
        assert!(largest <= 32 * MAX_FRAME, "{largest}");
    }

    fn size_of_items(path: &[u64]) -> usize {
        match path {
            [10 | 11, _] => size_of::<(String, String)>(),
            [20, 8] => size_of::<crate::wire::EnvVar>(),
            [26, 17] => size_of::<StreamEnd>(),
            [26, 17, 3] => size_of::<crate::wire::Gap>(),
            [26, 17, 4] => size_of::<crate::wire::SegmentHash>(),
            [30, 1] => size_of::<InventoryItem>(),
            [30, 1, 5] => size_of::<StreamLength>(),
            [31, 1] => size_of::<crate::wire::ReconcileItem>(),
            _ => size_of::<String>(),
        }
    }
}
