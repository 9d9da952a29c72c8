//! The partition of an account: Java's murmur2 of its name, so that any Kafka client can compute it.

/// `(murmur2(account) & 0x7fffffff) % partitions`: the partition that Java's default partitioner gives to the account's
/// name.
pub fn partition_of(account: &str, partitions: i32) -> i32 {
    ((murmur2(account.as_bytes()) & 0x7fff_ffff) % partitions.unsigned_abs()) as i32
}

/// `org.apache.kafka.common.utils.Utils.murmur2`. Not librdkafka's: that one is reachable only by letting
/// it partition by key, and our key is not the account.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of Kafka's own `UtilsTest.testMurmur2`, and of the name lengths 0 to 4 mod 4.
    #[test]
    fn murmur2_is_javas() {
        for (text, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()) as i32, hash, "{text}");
        }
    }

    #[test]
    fn an_account_always_lives_in_one_partition_of_those_there_are() {
        for account in ["acme-stripe", "acme-chargebee", "x", "a.b_c-9"] {
            let partition = partition_of(account, 12);
            assert!((0..12).contains(&partition));
            assert_eq!(partition, partition_of(account, 12));
        }
    }
}
