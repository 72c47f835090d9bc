git init -q -b main ../inner.git
echo from the submodule > ../inner.git/file
git -C ../inner.git add -A
git -C ../inner.git -c user.name=t -c user.email=t@example.org commit -q -m inner
git -c protocol.file.allow=always submodule --quiet add ../inner.git inner
