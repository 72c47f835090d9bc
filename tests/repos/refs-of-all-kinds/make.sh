git add -A
C='git -c user.name=t -c user.email=t@example.org commit -q -a -m'
$C one
git tag v1
git checkout -q -b other
echo two > file
$C two
git checkout -q --detach
echo three > file
$C three
git update-ref refs/pull/7/head HEAD
git checkout -q -f main
echo four > file
