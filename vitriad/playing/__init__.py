"""The page of `vitriad play`: its application, and the models behind it."""
