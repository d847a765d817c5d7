"""Operations on boxes, with static shapes."""
