"""Operations that have a fast form per backend."""
