package image

// What only tests see of the package.
var (
	NameFor   = nameFor
	RecipeKey = recipeKey
)

// TryLock takes the store's lock, as another process would.
func (s *Store) TryLock() (unlock func(), err error) {
	f, err := s.tryLock()
	if err != nil {
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}
