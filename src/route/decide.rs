//! Local, Central or home: the decision, pure.
