//! The error codes of Kafka's protocol that the embedded Kafka answers with.

/// Why a request is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum Code {
    OffsetOutOfRange = 1,
    CorruptMessage = 2,
    UnknownTopicOrPartition = 3,
    UnknownMemberId = 25,
    IllegalGeneration = 22,
    RebalanceInProgress = 27,
    UnsupportedVersion = 35,
    TopicAlreadyExists = 36,
    OutOfOrderSequence = 45,
    DuplicateSequence = 46,
    /// The producer was fenced, or its transaction has ended.
    InvalidProducerEpoch = 47,
    InvalidTransactionState = 48,
    InvalidProducerIdMapping = 49,
}

/// 0, or the code of an error, as answers carry it.
pub fn code_of<T>(result: &Result<T, Code>) -> i16 {
    result.as_ref().map_or_else(|code| *code as i16, |_| 0)
}
