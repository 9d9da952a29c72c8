//! Errors of the services that scimtail depends on: Kafka and the schema registry.

use crate::directory::Problem;

/// Why Kafka or the schema registry did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// The service does not answer, or answers that it cannot work now: try later.
    #[error("{0}")]
    Unreachable(Problem),
    /// The service answers and refuses: a person has to act.
    #[error("{0}")]
    Refused(Problem),
    /// The call was called off before its outcome was known.
    #[error("{0}")]
    Cancelled(Problem),
}

impl ServiceError {
    pub fn unreachable(problem: impl Into<Problem>) -> ServiceError {
        ServiceError::Unreachable(problem.into())
    }

    pub fn refused(problem: impl Into<Problem>) -> ServiceError {
        ServiceError::Refused(problem.into())
    }

    pub fn cancelled(problem: impl Into<Problem>) -> ServiceError {
        ServiceError::Cancelled(problem.into())
    }

    pub fn problem(&self) -> &Problem {
        match self {
            ServiceError::Unreachable(problem) | ServiceError::Refused(problem) | ServiceError::Cancelled(problem) => {
                problem
            }
        }
    }

    pub fn is_refused(&self) -> bool {
        matches!(self, ServiceError::Refused(_))
    }
}
